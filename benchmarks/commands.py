"""Runs commands in processes of their own, which needn't import anything: they are copies of this one."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from tas_tf.cli import command


def import_all(modules: Iterable[str]) -> None:
    """Imports the modules of commands once for all processes, which must happen before this one computes anything."""
    for module in modules:
        importlib.import_module(module)


def start(module: str, flags: Sequence[str], out: str | Path = os.devnull) -> multiprocessing.Process:
    """Starts a command.

    Args:
        module: Module of the command.
        flags: Its arguments.
        out: File for what it prints; by default that is lost, but for errors.
    """
    process = multiprocessing.get_context("fork").Process(target=_command, args=(module, flags, str(out)))
    process.start()
    return process


def run_to_the_end(module: str, flags: Sequence[str]) -> None:
    """Runs a command that is expected to succeed.

    Raises:
        RuntimeError: It fails.
    """
    process = start(module, flags)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{module} ended with {process.exitcode}: {' '.join(flags)}")


def _command(module: str, flags: Sequence[str], out: str) -> None:
    sys.argv = [module, *flags]
    written = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    # Of the process itself, as native libraries write to it.
    os.dup2(written, 1)
    if out != os.devnull:
        os.dup2(written, 2)
    command.run(importlib.import_module(module).main)
