"""Keeps two processes from working on one run folder."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from tas_tf.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where run folders aren't locked
    fcntl = None

#: File in a run folder that the process working on it holds a lock on. The lock ends with the process, however it ends.
LOCK = ".lock"

#: Descriptors of the files of folders that this process has locked.
_held: dict[Path, int] = {}


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
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file, folder, fcntl.LOCK_EX)
        except BaseException:
            os.close(file)
            raise
        if _is(file, folder / LOCK):
            break
        os.close(file)  # its holder has removed it meanwhile
    os.ftruncate(file, 0)
    os.write(file, json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode())
    _held[folder] = file


def check_free(folder: Path) -> None:
    """Checks, without writing, that no other process works on a folder, which needn't exist.

    Raises:
        UserError: One does.
    """
    folder = folder.resolve()
    if fcntl is None or folder in _held or not (folder / LOCK).exists():
        return
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:  # found out later
        return
    try:
        _lock(file, folder, fcntl.LOCK_SH)  # shared, as others may look at the same time
    finally:
        os.close(file)


def is_free(folder: Path) -> bool:
    """Whether no other process works on a folder, which needn't exist."""
    try:
        check_free(folder)
    except UserError:
        return False
    return True


def release_all() -> None:
    """Ends the locks of this process."""
    while _held:
        folder, file = _held.popitem()
        if _is(file, folder / LOCK):
            (folder / LOCK).unlink(missing_ok=True)
        os.close(file)


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: int, folder: Path, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"`run_dir`: {_holder(file)} is working on {folder}. Wait until it ends, or use another `run_dir`."
        ) from error
    except OSError:  # a file system without locks
        return


def _holder(file: int) -> str:
    try:
        found = json.loads(os.pread(file, 1000, 0))
        return f"process {found['process']} on {found['machine']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
