"""What a report says about a budget in time: predictions, measurements, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tas_tf.cost.cost_model import told
from tas_tf.report.formatting import MISSING, format_ms, format_share

#: Name of the shape that was kept, among other predictions.
STUDENT = "student"


@dataclass(frozen=True)
class Prediction:
    """A shape's latency, as shares of the unpruned network's.

    Attributes:
        name: Name of the shape.
        predicted: What the model of latency says.
        measured: What was measured: of the student its file, of other shapes files with random weights.
    """

    name: str
    predicted: float
    measured: float


def is_elsewhere(report: Mapping[str, Any]) -> bool:
    """Whether the budget is one in time on another device than the one that made the report."""
    return "device" in (report.get("latency") or {})


def predictions(report: Mapping[str, Any]) -> list[Prediction]:
    """All shapes whose latency was both predicted and measured, the student last.

    A race knows its shapes by name. Otherwise, they are those that the search considered, in this order.
    """
    search = report["search"] or {}
    if search.get("budget_kind") != "latency":
        return []
    full = search.get("latency_full_ms")
    named = {name: one for name, one in (search.get("proposals") or {}).items() if "measured" in one}
    found = [Prediction(name, one["latency"] / full, one["measured"] / full) for name, one in named.items()]
    if not found and not is_elsewhere(report):  # earlier versions listed predictions for a device there
        timed = enumerate(search.get("latency_timed") or (), 1)
        found = [Prediction(f"shape {number}", one["predicted"], one["measured"]) for number, one in timed]
    predicted, share = student_prediction(report), (report.get("latency") or {}).get("share")
    if None not in (predicted, share):
        found.append(Prediction(STUDENT, predicted, share))
    return found


def student_prediction(report: Mapping[str, Any]) -> float | None:
    """The predicted latency of the student's shape, as a share of the unpruned network's; `None` if nobody knows."""
    search, ratio = report["search"] or {}, (report["search"] or {}).get("shape_latency_ratio")
    won = (search.get("proposals") or {}).get(search.get("proposal"))
    if won and "latency" in won and search.get("latency_full_ms"):
        return won["latency"] / search["latency_full_ms"]
    if is_elsewhere(report) and ratio is not None:
        return ratio / (1 + search["latency_error"]["mean"])  # budgets allow for the mean error
    alike = [one["predicted"] for one in search.get("latency_timed") or () if one["measured"] == ratio]
    return alike[0] if alike else None


def verdict(latency: Mapping[str, Any] | None) -> str:
    """Whether the student keeps the budget, in words."""
    if latency is None:
        return "not checked: no file was timed"
    if latency.get("kept") is not None:
        return "kept" if latency["kept"] else "not kept"
    if "share" in latency:
        return "too noisy to tell"
    return "not checked there yet" if "device" in latency else f"not checked: no file is {latency.get('format')}"


def latency_lines(report: Mapping[str, Any]) -> list[str]:
    """What the terminal says of a budget in time: the verdict, and what is left to do."""
    latency = report.get("latency") or {}
    if not latency:
        return []
    line = f"budget {report['budget']}: {verdict(latency)}"
    if "share" in latency:
        line += (
            f"; the student takes {_with_noise(latency)} of the teacher's time{_place(latency)} "
            f"({latency['format']}), at most {format_share(latency['budget_share'])} is allowed"
        )
    return [line, *([f"next: {latency['next']}"] if "next" in latency else [])]


def budget_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Labels and values on a budget in time: what was measured, predicted, and whether it is kept."""
    search, latency = report["search"] or {}, report.get("latency")
    error, budget = search.get("latency_error") or {}, search.get("budget_latency")
    threads, full, noise, runtime = (
        search.get(f"latency_{name}") for name in ("threads", "full_ms", "noise", "runtime")
    )
    return [
        ("budget in time", MISSING if budget is None else told("latency", budget)),
        (
            "latency measured on",
            f"{search.get('latency_device', MISSING)}{f' ({runtime})' if runtime else ''}, "
            f"{search.get('latency_format', MISSING)}, threads: {MISSING if threads is None else threads}",
        ),
        ("unpruned network's time there", format_ms(full)),
        *([("noise of measurements there", format_share(noise))] if noise is not None else []),
        (
            "error of predicted latency",
            f"{format_share(error.get('mean'))} on average, {format_share(error.get('worst'))} at most",
        ),
        ("student's predicted time, as a share of the original's", format_share(student_prediction(report))),
        ("student's time in turns with the teacher", _with_noise(latency or {}) + _place(latency or {})),
        ("budget in time kept", verdict(latency)),
        *([("what is left to do", latency["next"])] if latency and "next" in latency else []),
    ]


def shares_row(report: Mapping[str, Any], names: list[str]) -> list[tuple[str, list[str]]]:
    """A row with the time of all models' files as shares of the teacher's, and whether that is within the budget.

    There is none if the budget isn't one in time on this machine. The student's own verdict is that of `verdict`, whose
    measurement is more precise.
    """
    latency = report.get("latency") or {}
    format, limit = latency.get("format"), latency.get("budget_share")
    times = {name: (report[name]["tflite"].get(format) or {}).get("latency_ms") for name in names}
    if is_elsewhere(report) or limit is None or not times["teacher"]:
        return []
    cells = []
    for name, time in times.items():
        share = None if time is None else time / times["teacher"]
        within = "" if share is None or name == "teacher" else ", within" if share <= limit else ", over"
        if name == STUDENT and "share" in latency:
            share, within = latency["share"], f", {verdict(latency)}"
        cells.append(f"{format_share(share)}{within}")
    return [(f"{format}.tflite latency, share of teacher's (budget {format_share(limit)})", cells)]


def _with_noise(latency: Mapping[str, Any]) -> str:
    share, noise = latency.get("share"), latency.get("noise")
    return format_share(share) if share is None or noise is None else f"{format_share(share)} ± {100 * noise / 2:.2f}"


def _place(latency: Mapping[str, Any]) -> str:
    return f" on {latency['device']}" if "share" in latency and "device" in latency else ""
