"""Keeps two processes from working on one run folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import IO

from tas_tf.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where run folders aren't locked
    fcntl = None

#: File in a run folder that the process working on it holds a lock on. The lock ends with the process, however it ends.
LOCK = ".lock"

_held: dict[Path, IO[str]] = {}


def acquire(folder: Path) -> None:
    """Locks a folder until `release_all` or the end of this process, however it ends.

    Args:
        folder: An existing folder.

    Raises:
        UserError: Another process works on it.
        OSError: The folder isn't writable.
    """
    folder = folder.resolve()
    if fcntl is None or folder in _held:
        return
    while True:
        file = _open(folder / LOCK, "a+")
        try:
            _lock(file, folder)
        except BaseException:
            file.close()
            raise
        if _is(file, folder / LOCK):
            break
        file.close()  # its holder has removed it meanwhile
    file.truncate(0)
    file.write(json.dumps({"process": os.getpid(), "machine": socket.gethostname()}))
    file.flush()
    _held[folder] = file


def check_free(folder: Path) -> None:
    """Checks, without writing, that no other process works on a folder, which needn't exist.

    Raises:
        UserError: One does.
    """
    folder = folder.resolve()
    if fcntl is None or folder in _held or not (folder / LOCK).exists():
        return
    with contextlib.suppress(OSError), _open(folder / LOCK, "r") as file:  # what can't be opened is found out later
        _lock(file, folder)


def release_all() -> None:
    """Ends the locks of this process."""
    while _held:
        folder, file = _held.popitem()
        if _is(file, folder / LOCK):
            (folder / LOCK).unlink(missing_ok=True)
        file.close()


def _open(path: Path, mode: str) -> IO[str]:
    return path.open(mode, encoding="utf-8")


def _is(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"`run_dir`: {_holder(file)} is working on {folder}. Wait until it ends, or use another `run_dir`."
        ) from error
    except OSError:  # a file system without locks
        return


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"process {found['process']} on {found['machine']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
