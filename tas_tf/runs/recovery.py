"""Puts back what killed processes had moved away in a run folder while they replaced results."""

from __future__ import annotations

from glob import glob
from pathlib import Path

from tas_tf.replacing import put_back, unfinished
from tas_tf.runs.config import RUNS_INSIDE
from tas_tf.runs.lock import check_free, is_free
from tas_tf.runs.run import Run


def recover(run: Run) -> None:
    """Puts back what killed processes had moved away in a run folder, and in those of the runs inside it.

    Only folders in which results are replaced are looked at: the run folder may hold many other files. What another
    process is working on is left to it.

    Args:
        run: The run, whose folder need not exist.

    Raises:
        UserError: Another process works on the run folder, or there is something to put back and the folder isn't
            writable.
        OSError: Files can't be moved.
    """
    check_free(run.path)
    # Those of the steps. In a folder of runs, such as `runs`, they are runs, and another process may be at work on one.
    own = [run.path, *_folders_in(run.path)]
    # In this order: a process that ends in between has nothing unfinished when `put_back` looks again.
    if waiting := [folder for folder in own if unfinished(folder) and is_free(folder)]:
        run.prepare()
        for folder in waiting:
            put_back(folder)
    for inside in RUNS_INSIDE:
        for folder in filter(is_free, _folders_in(run.path / inside)):
            recover(Run(folder))


def _folders_in(folder: Path) -> list[Path]:
    # Unlike that of `Path`, this `glob` takes it calmly if a folder vanishes meanwhile.
    return [folder / name for name in sorted(glob("*/", root_dir=folder))]
