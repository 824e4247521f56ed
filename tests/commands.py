"""Runs commands in this process, and provides the environment for those that run in their own."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import pytest
from absl import flags
from absl.testing import flagsaver

from tas_tf.cli import command as command_module


def quiet_environment() -> dict[str, str]:
    """A user's environment, without the log level that tests may have set for TensorFlow."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


@contextlib.contextmanager
def fresh_flags(*arguments: str) -> Iterator[None]:
    """Sets flags as a command with these arguments would in its own process; afterwards, they are as before."""
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["command", *map(str, arguments)])
        yield


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_command(module: ModuleType, *arguments: str) -> Outcome:
    """Runs a command as its own process would: flags start from their defaults."""
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", [module.__name__, *map(str, arguments)])
    printed = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with fresh_flags(), argv, printed[0], printed[1], pytest.raises(SystemExit) as ended:
        command_module.run(module.main)
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())
