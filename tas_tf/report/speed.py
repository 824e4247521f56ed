"""Compares speed-up with the reduction in multiply-adds for each format, and lists the operators if it falls short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tas_tf.report.formatting import format_ms, format_ratio

#: A speed-up below this share of the reduction in multiply-adds falls short.
_ENOUGH = 0.9
_MOST_SHOWN = 4
_LEAST_SHARE = 0.005
#: If operators take a smaller part of a call's time than this, most of it is overhead.
_COVERED = 0.5

#: Note in a report on a network whose latency is mostly overhead.
OVERHEAD = "Most of a call's time is overhead, which fewer multiply-adds don't reduce."


@dataclass(frozen=True)
class OperatorPair:
    """One type of operator in both networks.

    Attributes:
        name: LiteRT's name of the type.
        teacher_ms: Milliseconds in the teacher; `None` if the teacher has no operator of this type.
        student_ms: Milliseconds in the student.
        share: Share of the student's time, 0 to 1.
    """

    name: str
    teacher_ms: float | None
    student_ms: float
    share: float


@dataclass(frozen=True)
class Speed:
    """Student against teacher in one format; factors are teacher / student.

    Attributes:
        format: Name of the format.
        speedup: Factor of the median latency.
        macs_reduction: Factor of the multiply-adds.
        size_reduction: Factor of the file size.
        falls_short: Whether the speed-up is clearly smaller than the reduction in multiply-adds.
        latency_ms: Latency of the student.
        seen_ms: Time of all the student's operators; the rest of the latency is the overhead of a call.
        operators: The student's operators, the most expensive first, without negligible ones; empty without a profile.
    """

    format: str
    speedup: float | None
    macs_reduction: float | None
    size_reduction: float | None
    falls_short: bool
    latency_ms: float | None
    seen_ms: float
    operators: Sequence[OperatorPair]

    @property
    def mostly_overhead(self) -> bool:
        """Whether the call spends most of its time outside the operators, where fewer multiply-adds don't help."""
        return bool(self.operators) and self.latency_ms is not None and self.seen_ms < _COVERED * self.latency_ms


def compare_speed(report: Mapping) -> list[Speed]:
    """Compares speed-up with the reduction in multiply-adds, for each TFLite format of a report."""
    comparison = report["comparison"]
    reduction = comparison["macs_reduction"]
    rows = []
    for format, speedup in comparison["speedup"].items():
        teacher, student = (report[name]["tflite"][format] for name in ("teacher", "student"))
        rows.append(
            Speed(
                format=format,
                speedup=speedup,
                macs_reduction=reduction,
                size_reduction=comparison["size_reduction"][format],
                falls_short=None not in (speedup, reduction) and speedup < _ENOUGH * reduction,
                latency_ms=student.get("latency_ms"),
                seen_ms=sum(one["milliseconds"] for one in student.get("operators") or ()),
                operators=_pair_operators(teacher, student),
            )
        )
    return rows


def speed_cells(speed: Speed) -> list[str]:
    """Returns a row of the speed table: format, speed-up, reduction in multiply-adds, reduction in bytes."""
    factors = (speed.speedup, speed.macs_reduction, speed.size_reduction)
    return [f"{speed.format}.tflite", *(format_ratio(factor) for factor in factors)]


def operator_cells(pair: OperatorPair) -> list[str]:
    """Returns a row of the operator table: name, milliseconds in the teacher and in the student, share."""
    return [pair.name, format_ms(pair.teacher_ms), format_ms(pair.student_ms), f"{100 * pair.share:.0f} %"]


def explain(speed: Speed) -> str:
    """Returns a line on the operators of a student that is slower than its multiply-adds suggest."""
    summary = (
        f"{speed.format}: {format_ratio(speed.speedup)} faster with {format_ratio(speed.macs_reduction)} fewer MACs."
    )
    if not speed.operators:
        return f"{summary} LiteRT gives no profile of the operators."
    listed = "; ".join(
        f"{pair.name} {format_ms(pair.student_ms)} (teacher {format_ms(pair.teacher_ms)})"
        for pair in speed.operators[:_MOST_SHOWN]
    )
    seen = f"{format_ms(speed.seen_ms)}, latency {format_ms(speed.latency_ms)}"
    overhead = f" {OVERHEAD}" if speed.mostly_overhead else ""
    return f"{summary} Operators, from a separate profile ({seen}): {listed}.{overhead}"


def _pair_operators(teacher: Mapping, student: Mapping) -> list[OperatorPair]:
    before = {operator["name"]: operator["milliseconds"] for operator in teacher.get("operators") or ()}
    return [
        OperatorPair(one["name"], before.get(one["name"]), one["milliseconds"], one["share"])
        for one in student.get("operators") or ()
        if one["share"] >= _LEAST_SHARE
    ]
