"""Compares speed-up with the reduction in multiply-adds for each format, and says why they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tas_tf.report.formatting import format_ms, format_ratio

#: A speed-up below this share of the reduction in multiply-adds falls short.
_ENOUGH = 0.9
_MOST_SHOWN = 4
_LEAST_SHARE = 0.005
#: If operators take a smaller part of a call's time than this, most of it is overhead.
_COVERED = 0.5

#: Shares of the student's time from which operators are a reason.
_OUTSIDE, _NO_PRODUCTS = 0.1, 0.2
#: Beginnings of LiteRT's names of operators that have multiply-adds.
_PRODUCTS = (
    *("convolution", "conv_", "deconvolution", "depthwise", "dwconv", "transpose_conv"),
    *("fully", "batch matrix", "batch_matmul"),
)

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
        why: Sentences on why the speed-up is smaller or larger than the reduction in multiply-adds; empty if it isn't.
    """

    format: str
    speedup: float | None
    macs_reduction: float | None
    size_reduction: float | None
    falls_short: bool
    latency_ms: float | None
    seen_ms: float
    operators: Sequence[OperatorPair]
    why: str = ""


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
                falls_short=_falls_short(speedup, reduction),
                latency_ms=student.get("latency_ms"),
                seen_ms=sum(one["milliseconds"] for one in student.get("operators") or ()),
                operators=_pair_operators(teacher, student),
                why=_why(speedup, reduction, teacher, student),
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
    """Returns a line on why a student is slower or faster than its multiply-adds suggest; if slower, with operators."""
    summary = (
        f"{speed.format}: {format_ratio(speed.speedup)} faster with {format_ratio(speed.macs_reduction)} fewer MACs."
    )
    if not (speed.operators and speed.falls_short):
        return f"{summary} {speed.why}".strip()
    listed = "; ".join(
        f"{pair.name} {format_ms(pair.student_ms)} (teacher {format_ms(pair.teacher_ms)})"
        for pair in speed.operators[:_MOST_SHOWN]
    )
    seen = f"{format_ms(speed.seen_ms)}, latency {format_ms(speed.latency_ms)}"
    return f"{summary} {speed.why} Operators, from a separate profile ({seen}): {listed}."


def _falls_short(speedup: float | None, reduction: float | None) -> bool:
    return None not in (speedup, reduction) and speedup < _ENOUGH * reduction


def _why(speedup: float | None, reduction: float | None, teacher: Mapping, student: Mapping) -> str:
    """What the profiles of both networks say on a difference between speed-up and reduction in multiply-adds."""
    if None in (speedup, reduction) or _ENOUGH <= speedup / reduction <= 1 / _ENOUGH:
        return ""
    before, after = ({one["name"]: one for one in each.get("operators") or ()} for each in (teacher, student))
    if not before or not after:
        return "LiteRT gives no profile of the operators of both networks, which would tell why."
    reasons = list((_slower if speedup < reduction else _faster)(reduction, before, after, student))
    return " ".join(reasons) or "The profile of the operators doesn't tell why: time both on a calmer machine."


def _slower(reduction: float, before: Mapping, after: Mapping, student: Mapping) -> Iterator[str]:
    seen = _milliseconds(after)
    if seen < _COVERED * (student.get("latency_ms") or 0):
        yield OVERHEAD
    outside = {name: one for name, one in after.items() if name == name.upper()}
    if _milliseconds(outside) > _OUTSIDE * seen:
        yield f"{_share(outside, seen)} goes to operators that XNNPACK doesn't take: {', '.join(outside)}."
    memory = {name: one for name, one in after.items() if name not in outside and not _has_products(name)}
    if _milliseconds(memory) > _NO_PRODUCTS * seen:
        yield f"{_share(memory, seen)} goes to operators without multiply-adds, which read and write memory."
    gained = _gained(before, after)
    if gained and gained < _ENOUGH * reduction:
        yield (
            f"Convolutions and dense layers are {gained:.3g} times faster: kernels compute 4 to 64 channels at once, "
            "each operator costs time of its own, and narrow layers wait for memory."
        )


def _faster(reduction: float, before: Mapping, after: Mapping, student: Mapping) -> Iterator[str]:
    del student
    counts = [sum(one.get("count", 1) for one in each.values()) for each in (before, after)]
    if counts[1] < counts[0]:
        yield (
            f"It has {counts[1]} operators instead of {counts[0]}: without them, their own cost and the memory that "
            "they read and write are saved too."
        )
    gained = _gained(before, after)
    if gained and gained * _ENOUGH > reduction:
        yield (
            f"Convolutions and dense layers are {gained:.3g} times faster: the widths left suit the kernels' steps of "
            "4 to 64 channels better, or more of the network fits into caches."
        )


def _milliseconds(operators: Mapping) -> float:
    return sum(one["milliseconds"] for one in operators.values())


def _share(operators: Mapping, seen: float) -> str:
    return f"{100 * _milliseconds(operators) / seen:.0f} % of the operators' time"


def _gained(before: Mapping, after: Mapping) -> float:
    """How many times faster the operators with multiply-adds are; 0 if the profiles don't tell."""
    times = [
        _milliseconds({name: one for name, one in each.items() if _has_products(name)}) for each in (before, after)
    ]
    return times[0] / times[1] if times[1] else 0.0


def _has_products(name: str) -> bool:
    return name.lower().startswith(_PRODUCTS)


def _pair_operators(teacher: Mapping, student: Mapping) -> list[OperatorPair]:
    before = {operator["name"]: operator["milliseconds"] for operator in teacher.get("operators") or ()}
    return [
        OperatorPair(one["name"], before.get(one["name"]), one["milliseconds"], one["share"])
        for one in student.get("operators") or ()
        if one["share"] >= _LEAST_SHARE
    ]
