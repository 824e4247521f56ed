"""Replaces files and folders together: whatever happens meanwhile, either all of them are the new ones or none is.

The new ones are made in a scratch folder beside the old ones. The old ones are then moved into that folder, which gets
a list of what was there, and the new ones take their place. Until the list is removed, the old ones count: a failure
puts them back at once, and what a killed process left is put back by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from glob import glob
from pathlib import Path

from tas_tf.interruption import deferred

#: Prefix of the scratch folders, which an interrupted write leaves behind. They are folders so that no pattern for
#: files, such as `*.keras`, matches them.
PARTIAL_PREFIX = ".partial-"
# In a scratch folder: what has been moved away, under numbers, and the list of what was there, by name.
_OLD, _LIST = ".replaced", "list.json"


@contextlib.contextmanager
def scratch_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder inside another one, so that a rename can move files between the two. It is removed after.

    Args:
        folder: An existing folder.
    """
    scratch = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=folder))
    try:
        yield scratch
    finally:
        _discard(scratch)


def replace_together(scratch: Path, names: Iterable[str | Path]) -> None:
    """Moves files and folders from a scratch folder to the folder that it is in, in place of those of the same names.

    Requests to end the process wait until that is done.

    Args:
        scratch: What `scratch_folder` yields.
        names: Their paths relative to the scratch folder, and likewise to the folder. What the scratch folder lacks is
            removed from the folder.

    Raises:
        OSError: They can't be moved; everything is as it was.
    """
    folder, old = scratch.parent, scratch / _OLD
    names = list(dict.fromkeys(map(str, names)))
    _put_back_any(folder, names)
    for name in names:
        for path in (scratch / name, *(scratch / name).rglob("*")):
            if path.is_file():
                flush(path)
    there = {name: os.path.lexists(folder / name) for name in names}
    with deferred():
        old.mkdir()
        try:
            _write_list(old, there)
            for number, (name, was_there) in enumerate(there.items()):
                if was_there:
                    os.replace(folder / name, old / str(number))
                if os.path.lexists(scratch / name):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(scratch / name, folder / name)
            _flush_folders(scratch, names)
            (old / _LIST).unlink()
        except BaseException:
            _put_back(scratch)
            raise
        with contextlib.suppress(OSError):  # after a power cut, the old ones may count again
            flush(old)
        _remove_empty(folder, names)


def put_back(folder: str | Path) -> None:
    """Puts back what processes that were killed while they replaced files had moved away.

    Args:
        folder: The folder that has the scratch folders. No other process may be at work on it.

    Raises:
        OSError: Files can't be moved.
    """
    for scratch in unfinished(folder):
        _put_back(scratch)


def unfinished(folder: str | Path) -> list[Path]:
    """The scratch folders that hold what has to be put back.

    Args:
        folder: The folder that they are in, not deeper. It need not exist.
    """
    found = glob(f"{PARTIAL_PREFIX}*/{_OLD}/{_LIST}", root_dir=folder)
    return [Path(folder, name).parents[1] for name in found]


def remove_partial(folder: str | Path, *, of: str | None = None) -> None:
    """Removes the scratch folders that interrupted writes left in `folder`, after what they hold has been put back.

    Args:
        folder: The folder.
        of: Name of what was being written; by default, leftovers of all writes are removed.
    """
    if of is None:
        put_back(folder)
    else:
        _put_back_any(Path(folder), [of])
    for leftover in Path(folder).glob(PARTIAL_PREFIX + "*"):
        if of is None or (leftover / of).exists():
            _discard(leftover)


def flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk; otherwise a rename may get there before the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_back_any(folder: Path, names: Collection[str]) -> None:
    """Puts back what was replaced in a folder together with any of some names: others may be at work on the rest."""
    for scratch in folder.glob(PARTIAL_PREFIX + "*"):
        if not (_read_list(scratch) or {}).keys().isdisjoint(names):
            _put_back(scratch)


def _put_back(scratch: Path) -> None:
    """Undoes what was replaced from a scratch folder. It may be called again if it fails, or the process is killed."""
    folder, there = scratch.parent, _read_list(scratch)
    if there is None:
        return
    with deferred():
        for number, (name, was_there) in enumerate(there.items()):
            place, made, kept = folder / name, scratch / name, scratch / _OLD / str(number)
            if was_there and not os.path.lexists(kept):
                continue  # it wasn't moved yet, or is back already
            if os.path.lexists(place) and not os.path.lexists(made):
                os.replace(place, made)
            if was_there:
                os.replace(kept, place)
        _flush_folders(scratch, there)
        (scratch / _OLD / _LIST).unlink()
        _remove_empty(folder, there)


def _write_list(old: Path, there: dict[str, bool]) -> None:
    aside = old / f"{_LIST}.partial"
    aside.write_text(json.dumps(there), encoding="utf-8")
    flush(aside)
    os.replace(aside, old / _LIST)
    flush(old)


def _read_list(scratch: Path) -> dict[str, bool] | None:
    """Whether there was something, by name; `None` if nothing has been moved, or all is in its place."""
    try:
        return json.loads((scratch / _OLD / _LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:  # also if another process is done with it just now
        return None


def _discard(scratch: Path) -> None:
    """Removes a scratch folder, unless it holds what is still to be put back."""
    if _read_list(scratch) is None:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_empty(folder: Path, names: Iterable[str]) -> None:
    """Removes the folders between a folder and names in it, if they are empty."""
    for parent in {(folder / name).parent for name in names} - {folder}:
        with contextlib.suppress(OSError):  # it isn't empty, or isn't there
            parent.rmdir()


def _flush_folders(scratch: Path, names: Iterable[str]) -> None:
    """Flushes renames to disk."""
    parents = {(scratch.parent / name).parent for name in names}
    for folder in (scratch / _OLD, *filter(Path.is_dir, parents)):
        flush(folder)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a path for what is to become a file, and puts it in the file's place if the block ends without an error.

    Unlike the functions of `tas_tf.files`, this writes on each worker: its disk may be its own.

    Args:
        path: The file, in an existing folder.

    Raises:
        OSError: The file can't be written; it is as it was.
    """
    with scratch_folder(path.parent) as scratch:
        yield scratch / path.name
        flush(scratch / path.name)
        os.replace(scratch / path.name, path)
