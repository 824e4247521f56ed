"""Two results, of which one replaces the other; run as a program, this is killed at each operation on files in turn.

Arguments: folder with the earlier result, and a new folder for what is there after each kill and the next start.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tas_tf.replacing import put_back, remove_partial, replace_together, scratch_folder, unfinished
from tests.failures import OPERATIONS, fail_at

NAMES = ("model.bin", "saved", "other/model.bin", "gone.bin", "other/gone", "metrics.json")


def make(folder: Path, text: str, *, first: bool) -> None:
    """Files of an earlier or a later result: each has one that the other lacks."""
    (folder / "saved").mkdir(parents=True)
    (folder / "other" if first else folder / "new").mkdir()
    for name in ("model.bin", "saved/a", "metrics.json", *(["gone.bin", "other/gone"] if first else ["new/model.bin"])):
        (folder / name).write_text(text)


def replace(folder: Path) -> None:
    with scratch_folder(folder) as scratch:
        make(scratch, "later", first=False)
        replace_together(scratch, (*NAMES, "new/model.bin"))


def is_killed(number: int, work: Callable[[Path], None], folder: Path) -> bool:
    """Does something in a process that is killed at an operation, if it gets that far; returns whether it does."""
    process = os.fork()
    if not process:
        fail_at(pytest.MonkeyPatch(), OPERATIONS, number, kill=True)
        work(folder)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return {0: False, 9: True}[os.waitstatus_to_exitcode(status)]


def main(folder: Path, ends: Path) -> None:
    """Is killed while it replaces the earlier result, and while it puts that back."""
    for number in itertools.count():
        run = shutil.copytree(folder, ends / f"{number:03}")
        killed = is_killed(number, replace, run)
        for again in itertools.count():
            if not (unfinished(run) and is_killed(again, put_back, run)):
                break
        put_back(run)
        remove_partial(run)
        if not killed:
            break


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
