"""Whether a student keeps a budget in time, measured on the files that are deployed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from tas_tf.deploy.artefacts import artefact_path
from tas_tf.files import write_json
from tas_tf.latency.measure import time_files
from tas_tf.runs.records import read_result
from tas_tf.runs.workspace import Workspace

# Halves of a measurement that differ by more, as a share of it, tell nothing about a budget.
_NOISE = 0.1


def checks_latency(workspace: Workspace) -> bool:
    """Whether the student's file has to be checked: its shape was found for a budget in time on this machine."""
    config = workspace.config
    metrics = config.run.metrics("search")
    if config.latency.table or not metrics.exists():
        return False
    return read_result(metrics).get("budget_kind") == "latency"


def check_latency(workspace: Workspace, formats: Collection[str], folder: Path) -> None:
    """Times the student's file in turns with the teacher's, writes the result, and says whether the budget is kept.

    The budget is compared as a share of the unpruned network's latency, so that a slower clock changes nothing.

    Args:
        workspace: The run.
        formats: Formats of the files.
        folder: Folder of the files, which gets the result too.
    """
    config = workspace.config
    if not checks_latency(workspace):
        return
    search = read_result(config.run.metrics("search"))
    format, threads = search["latency_format"], search["latency_threads"]
    limit = round(search["budget_latency"] / search["latency_full_ms"], 6)
    result = folder / config.run.latency_json.name
    found = {"format": format, "threads": threads, "budget_share": limit, "budget_ms": search["budget_latency"]}
    if format not in formats:
        write_json(result, {**found, "kept": None})
        _warn(workspace, f"latency: the budget wasn't checked, because no file is {format}.")
        return
    files = [artefact_path(folder, format, model=model) for model in ("teacher", "student")]
    first, second = time_files(files, threads)
    shares = [student / teacher for teacher, student in (first, second)]
    share, noise = float(np.mean(shares)), abs(shares[0] - shares[1])
    teacher_ms, student_ms = (float(np.mean(pair)) for pair in zip(first, second, strict=True))
    kept = None if noise > _NOISE * share else share <= limit + noise
    times = {"share": share, "noise": noise, "teacher_ms": teacher_ms, "student_ms": student_ms, "kept": kept}
    write_json(result, {**found, **times})
    text = (
        f"latency: the student takes {share:.3f} of the teacher's time ({student_ms:.4g} of {teacher_ms:.4g} ms, "
        f"{format}, threads: {threads}), the budget is {limit:.3f} ({search['budget_latency']:.4g} ms)."
    )
    if kept:
        workspace.say(text)
    elif kept is None:
        _warn(
            workspace, f"{text} Two measurements differ by {noise:.3f}, too much to tell: measure on a calmer machine."
        )
    else:
        _warn(workspace, f"{text} Give a smaller budget.")


def _warn(workspace: Workspace, text: str) -> None:
    workspace.say(f"warning: {text}", style="yellow")
