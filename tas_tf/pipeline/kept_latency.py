"""Whether a student keeps a budget in time, measured on the files that are deployed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tas_tf.deploy.artefacts import artefact_path
from tas_tf.deploy.settings import format_to_time
from tas_tf.files import read_json, write_json
from tas_tf.latency.measure import time_files
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_record, read_result
from tas_tf.runs.workspace import Workspace

#: Measurements that are made at most.
TRIES = 3
# A smaller budget is given by this share more than the student is over, since measurements differ that much.
_MARGIN = 0.01


@dataclass(frozen=True)
class _Measured:
    """Two halves of a measurement of the student's file in turns with the teacher's, in milliseconds."""

    teacher: tuple[float, float]
    student: tuple[float, float]

    @property
    def shares(self) -> list[float]:
        return [student / teacher for teacher, student in zip(self.teacher, self.student, strict=True)]

    @property
    def share(self) -> float:
        return float(np.mean(self.shares))

    @property
    def noise(self) -> float:
        """By how much the two halves differ."""
        return max(self.shares) - min(self.shares)

    def keeps(self, limit: float) -> bool | None:
        """Whether the student's share is at most `limit`; `None` if one half says so and the other doesn't."""
        within = [share <= limit for share in self.shares]
        return within[0] if within[0] == within[1] else None


def is_found_for_time(config: RunConfig) -> bool:
    """Whether the student's shape was found for a budget in time, on this machine or on another device."""
    metrics = config.run.metrics("search")
    return not config.shape and metrics.exists() and read_result(metrics).get("budget_kind") == "latency"


def checks_latency(workspace: Workspace) -> bool:
    """Whether the student's file has to be checked: its shape was found for a budget in time on this machine."""
    return not workspace.config.latency.table and is_found_for_time(workspace.config)


def is_undecided(workspace: Workspace) -> bool:
    """Whether the student's file was checked on a machine that was too noisy to tell."""
    path = workspace.config.run.latency_json
    if not checks_latency(workspace) or not path.exists():
        return False
    found = read_json(path)
    return "share" in found and found["kept"] is None


def check_latency(workspace: Workspace, formats: Collection[str], files_in: Path, result_in: Path) -> None:
    """Times the student's file in turns with the teacher's, writes the result, and says whether the budget is kept.

    The budget is compared as a share of the unpruned network's latency, so that a slower clock changes nothing. A
    measurement that doesn't show that the budget is kept is made again, a few times; the calmest one counts.

    Args:
        workspace: The run.
        formats: Formats of the files.
        files_in: Folder of the files.
        result_in: Folder that gets the result.
    """
    config = workspace.config
    if not checks_latency(workspace):
        return
    search = read_result(config.run.metrics("search"))
    wanted, threads = search["latency_format"], search["latency_threads"]
    limit = round(search["budget_latency"] / search["latency_full_ms"], 6)
    result = result_in / config.run.latency_json.name
    format = format_to_time(wanted, formats)
    found = {
        "format": format or wanted,
        "threads": threads,
        "budget_share": limit,
        "budget_ms": search["budget_latency"],
    }
    if format is None:
        write_json(result, {**found, "kept": None})
        _warn(workspace, f"latency: the budget wasn't checked, because no file is {wanted}.")
        return
    files = [artefact_path(files_in, format, model=model) for model in ("teacher", "student")]
    measured = _measure(files, threads, limit)
    kept, share = measured.keeps(limit), measured.share
    teacher_ms, student_ms = (float(np.mean(pair)) for pair in (measured.teacher, measured.student))
    times = {"share": share, "noise": measured.noise, "teacher_ms": teacher_ms, "student_ms": student_ms, "kept": kept}
    write_json(result, {**found, **times})
    text = (
        f"latency: the student takes {share:.3f} of the teacher's time ({student_ms:.4g} of {teacher_ms:.4g} ms, "
        f"{format}, threads: {threads}; two measurements differ by {measured.noise:.3f}), the budget is {limit:.3f} "
        f"({search['budget_latency']:.4g} ms)."
    )
    if kept:
        workspace.say(text)
    elif kept is None:
        _warn(
            workspace,
            f"{text} That is too noisy to tell. On a calmer machine, run `export` as before: it measures again.",
        )
    else:
        _warn(workspace, f"{text} {advice(workspace, limit**2 / share)}")


def _measure(files: list[Path], threads: int, limit: float) -> _Measured:
    """Times both files until a measurement shows that the budget is kept; otherwise returns the calmest one."""
    calmest: _Measured | None = None
    for _ in range(TRIES):
        halves = time_files(files, threads)
        measured = _Measured(*((first, second) for first, second in zip(*halves, strict=True)))
        if calmest is None or measured.noise < calmest.noise:
            calmest = measured
        if calmest.keeps(limit):
            break
    return calmest


def advice(workspace: Workspace, budget: float) -> str:
    """What to run for a student that is fast enough.

    Args:
        workspace: A run whose student is too slow.
        budget: The budget to ask for, as a share of the original's time, if measurements were exact.
    """
    config = workspace.config
    digits = np.format_float_positional((1 - _MARGIN) * budget, precision=3, unique=False, fractional=False, trim="-")
    smaller = f"latency:{digits}"
    budgets = [smaller if one == config.budget else str(one) for one in config.outermost.budgets]
    changed = " ".join((*(f"`budget`={budget}" for budget in budgets), "`overwrite`"))
    kind = read_record(config.run.search_shape.with_name("digest.json"))["settings"].get("kind")
    if kind is None:
        return f"For a student that is fast enough, run `pipeline` as before, but with {changed}."
    return (
        f"For a student that is fast enough, run `baseline` as before, but with {changed}, then run `distill` and run "
        "`export` with `overwrite`."
    )


def _warn(workspace: Workspace, text: str) -> None:
    workspace.say(f"warning: {text}", style="yellow", markup=False)  # paths may have brackets
