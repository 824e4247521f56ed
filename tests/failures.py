"""Failures of single operations on files, for tests of what is left after them."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

#: Operations that change folders or make sure of it, as `MODULE.NAME`.
OPERATIONS = ("os.replace", "os.rename", "os.unlink", "os.rmdir", "os.mkdir", "os.fsync", "shutil.rmtree")


def fail_at(
    patch: pytest.MonkeyPatch, operations: str | Iterable[str], number: int, *, kill: bool = False
) -> list[str]:
    """Makes one of the following operations fail; those after it work.

    Args:
        patch: Undoes it.
        operations: Names of the operations that count, see `OPERATIONS`.
        number: Number of the one to fail, from 0.
        kill: Whether the process ends there, as if it was killed.

    Returns:
        The names of the operations so far, which grows.
    """
    done: list[str] = []

    def count(name: str) -> None:
        done.append(name)
        if len(done) == number + 1:
            if kill:
                os._exit(9)
            raise OSError(errno.EIO, "failure", name)

    for name in [operations] if isinstance(operations, str) else operations:
        module, _, attribute = name.rpartition(".")
        real = getattr(importlib.import_module(module), attribute)

        def run(*args, _name=name, _real=real, **kwargs):
            count(_name)
            return _real(*args, **kwargs)

        patch.setattr(name, run)
    return done


def names(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder, by their path inside it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
