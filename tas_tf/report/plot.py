"""Points in a plane for a page: places as percentages, ticks, and what each point says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tas_tf.report.comparison import Figure, Row, with_spread
from tas_tf.report.formatting import format_bytes, format_count, format_ms
from tas_tf.report.latencies import is_elsewhere
from tas_tf.report.scores import SCORES, Score, score_of, value_of

#: Roles that have colours of their own; all others share one.
TEACHER, STUDENT, RIVAL = "teacher", "student", "rival"
# Shapes of rivals' points in the style sheet.
_SHAPES = 6
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """One point.

    Attributes:
        name: What it is, which the legend shows.
        role: `teacher`, `student` or `rival`, which gives the colour.
        group: Points of one group can be shown alone; empty without groups.
        x: Place on the horizontal axis.
        y: Place on the vertical axis.
        x_spread: Half the width of a horizontal line through the point; 0 for none.
        y_spread: Half the height of a vertical one.
        details: What the point stands for: labels and texts.
    """

    name: str
    role: str
    group: str
    x: float
    y: float
    x_spread: float = 0.0
    y_spread: float = 0.0
    details: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Name and group in words."""
        return f"{self.name}, {self.group}" if self.group else self.name

    @property
    def text(self) -> str:
        """All that the point says, in a line."""
        return f"{self.title}: {', '.join(f'{label} {text}' for label, text in self.details)}"


@dataclass(frozen=True)
class Placed:
    """A point with places in percent of the plane, from the left and from the bottom."""

    point: Point
    left: float
    bottom: float
    width: float
    height: float
    shape: int


@dataclass(frozen=True)
class Plot:
    """Points with axes.

    Attributes:
        key: Identifier on the page.
        title: Heading.
        x_label: Title of the horizontal axis, which starts at 0.
        y_label: Title of the vertical axis.
        points: The points, at least one.
        names: All names on the page in order, so that they have the same shapes in all plots; by default those here.
        limit: Place of a vertical line, and what it says; `None` for none.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    names: tuple[str, ...] = ()
    limit: tuple[float, str] | None = None

    @property
    def placed_limit(self) -> tuple[float, str] | None:
        """The line as percent from the left, with its text."""
        if self.limit is None:
            return None
        low, high = self._x_range
        return round(100 * (self.limit[0] - low) / (high - low), 2), self.limit[1]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in order."""
        return list(dict.fromkeys(point.group for point in self.points if point.group))

    @property
    def shapes(self) -> dict[str, int]:
        """Shape of each name's points: 0 for teacher and student, others in turn."""
        alike = {point.name for point in self.points if point.role in (TEACHER, STUDENT)}
        names = dict.fromkeys([*self.names, *(point.name for point in self.points)])
        others = [name for name in names if name not in alike]
        return {**dict.fromkeys(alike, 0), **{name: 1 + number % _SHAPES for number, name in enumerate(others)}}

    @property
    def legend(self) -> list[tuple[str, str, int]]:
        """Name, role and shape of each kind of point."""
        roles = {point.name: point.role for point in self.points}
        return [(name, role, self.shapes[name]) for name, role in roles.items()]

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Percent from the left and text of each tick."""
        return _ticks(*self._x_range)

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Percent from the bottom and text of each tick."""
        return _ticks(*self._y_range)

    @property
    def placed(self) -> list[Placed]:
        """The points with their places."""
        x_low, x_high = self._x_range
        y_low, y_high = self._y_range
        shapes = self.shapes
        return [
            Placed(
                point,
                left=round(100 * (point.x - x_low) / (x_high - x_low), 2),
                bottom=round(100 * (point.y - y_low) / (y_high - y_low), 2),
                width=round(200 * point.x_spread / (x_high - x_low), 2),
                height=round(200 * point.y_spread / (y_high - y_low), 2),
                shape=shapes[point.name],
            )
            for point in self.points
        ]

    @property
    def _x_range(self) -> tuple[float, float]:
        limit = 0.0 if self.limit is None else self.limit[0]
        return 0.0, 1.08 * max(limit, *(point.x + point.x_spread for point in self.points)) or 1.0

    @property
    def _y_range(self) -> tuple[float, float]:
        low = min(point.y - point.y_spread for point in self.points)
        high = max(point.y + point.y_spread for point in self.points)
        margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
        return low - margin, high + margin


def plots_of(report: Mapping[str, Any]) -> list[Plot]:
    """The plots of a report's models: score over latency of each file, and over multiply-adds."""
    score = score_of(report)
    names = ("teacher", "student", *report["rivals"])
    files, models = [], []
    for name in names:
        role, model = name if name in (TEACHER, STUDENT) else RIVAL, report[name]
        for format, file in model["tflite"].items():
            files += _file_point(name, role, format, file, score)
        value = value_of(model, score)
        if None not in (value, model["macs"]):
            details = (("multiply-adds", format_count(model["macs"])), (score.title, score.written(value)))
            models.append(Point(name, role, "", model["macs"] / 1e6, score.scaled(value), details=details))
    label = f"test {score.axis}"
    place = " on this machine, not the device of the budget" if is_elsewhere(report) else ""
    timed = _plot("latency-plot", "Files: latency", f"latency of one image{place}, milliseconds", label, files)
    return [
        *(replace(plot, limit=_limit(report)) for plot in timed),
        *_plot("cost-plot", "Networks: multiply-adds", "multiply-adds, millions", label, models),
    ]


def _limit(report: Mapping[str, Any]) -> tuple[float, str] | None:
    """A budget in time on this machine in milliseconds, as a share of what the teacher's file takes; and its text."""
    latency = report.get("latency") or {}
    format, share = latency.get("format"), latency.get("budget_share")
    full = (report["teacher"]["tflite"].get(format) or {}).get("latency_ms")
    if is_elsewhere(report) or None in (share, full):
        return None
    return share * full, f"budget of {format} files: {format_ms(share * full)}"


def plots_of_rows(rows: Sequence[Row]) -> list[Plot]:
    """The plots of a comparison: score over latency and over multiply-adds, with spreads over seeds."""
    found = []
    costs = {
        "latency": ("latency_ms", 1.0, "latency of one image, milliseconds", format_ms),
        "multiply-adds": ("macs", 1e6, "multiply-adds, millions", format_count),
    }
    for score in (SCORES[name] for name in dict.fromkeys(row.metric for row in rows)):
        of_score = [row for row in rows if row.metric == score.name]
        for key, (cost, unit, label, write) in costs.items():
            points = []
            for row in of_score:
                role = RIVAL if row.kd is not None else TEACHER
                points += _row_point(row.name, role, row.figures, score, cost, unit, write)
            for name, figures in _teachers(of_score, score, cost) if points else ():
                points += _row_point(name, TEACHER, figures, score, cost, unit, write)
            title = f"{score.title[0].upper()}{score.title[1:]} and {key}"
            found += _plot(
                f"{key}-{score.name}", title, label, f"test {score.axis}", points, [row.name for row in rows]
            )
    return found


def _plot(
    key: str, title: str, x_label: str, y_label: str, points: Sequence[Point], names: Sequence[str] = ()
) -> list[Plot]:
    """A plot of the points that have places, if there are any."""
    placed = tuple(point for point in points if math.isfinite(point.x + point.y + point.x_spread + point.y_spread))
    return [Plot(key, title, x_label, y_label, placed, tuple(names))] if placed else []


def _teachers(rows: Sequence[Row], score: Score, cost: str) -> list[tuple[str, Mapping[str, Figure]]]:
    """The teachers of students: names and figures, one for each network that has no row of its own.

    Networks are told apart by score, multiply-adds and parameters. A network that was timed with several students has
    the mean of its latencies.
    """
    networks: dict[tuple, list[Row]] = {}
    for row in rows:
        if score.name in row.teacher and cost in row.teacher:
            of_file = row.format if cost == "latency_ms" else None
            networks.setdefault((*_network(row.teacher, score), of_file), []).append(row)
    shown = [_network(row.figures, score) for row in rows if row.kd is None and cost in row.figures]
    networks = {key: students for key, students in networks.items() if key[:-1] not in shown}
    found = []
    for students in networks.values():
        first, *more = students
        name = f"teacher of {first.name}{f' and {len(more)} more' if more else ''}" if len(networks) > 1 else "teacher"
        costs = dict.fromkeys(row.teacher[cost] for row in students)
        mean = next(iter(costs)) if len(costs) == 1 else Figure.over([each.mean for each in costs])
        found.append((name, {**first.teacher, cost: mean}))
    return found


def _network(figures: Mapping[str, Figure], score: Score) -> tuple[Figure | None, ...]:
    """What tells networks apart."""
    return tuple(figures.get(name) for name in (score.name, "macs", "params"))


def _row_point(
    name: str,
    role: str,
    figures: Mapping[str, Figure],
    score: Score,
    cost: str,
    unit: float,
    write: Callable[[float | None], str],
) -> list[Point]:
    if cost not in figures or score.name not in figures:
        return []
    value, of_cost = figures[score.name], figures[cost]
    size = abs(score.scaled(1.0))
    details = (
        ("multiply-adds" if cost == "macs" else "latency", with_spread(of_cost, write)),
        (score.title, with_spread(value, score.written)),
    )
    spreads = (of_cost.spread or 0.0) / unit, size * (value.spread or 0.0)
    return [Point(name, role, "", of_cost.mean / unit, score.scaled(value.mean), *spreads, details)]


def _file_point(name: str, role: str, format: str, file: Mapping[str, Any], score: Score) -> list[Point]:
    value, latency = value_of(file, score), file.get("latency_ms")
    if None in (value, latency):
        return []
    details = (
        ("latency", format_ms(latency)),
        (score.title, score.written(value)),
        ("size", format_bytes(file.get("bytes"))),
    )
    return [Point(name, role, format, latency, score.scaled(value), details=details)]


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values within a range, at most seven, as percent of it and as text.

    >>> _ticks(0.0, 1.0)
    [(0.0, '0'), (20.0, '0.2'), (40.0, '0.4'), (60.0, '0.6'), (80.0, '0.8'), (100.0, '1')]
    """
    rough = (high - low) / _TICKS
    size = 10 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, 1 - math.floor(math.log10(step)))
    texts = {number: f"{number * step:.{decimals}f}" for number in range(first, last + 1)}
    return [
        (round(100 * (number * step - low) / (high - low), 2), _short(text) if decimals else text)
        for number, text in texts.items()
    ]


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") or "0"
