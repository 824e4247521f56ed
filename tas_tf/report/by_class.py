"""Scores of teacher, student and rivals for each class, those that lose most first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tas_tf.report.formatting import format_share

# Classes that are named in the terminal, and rows of the page.
_NAMED, _MOST_ROWS = 3, 100


@dataclass(frozen=True)
class ClassRow:
    """Scores of a class.

    Attributes:
        name: Name of the class, behind that of its output if there are several.
        scores: Scores by model, in order.
        change: Student minus teacher; `None` if either is missing.
    """

    name: str
    scores: tuple[float | None, ...]
    change: float | None

    @property
    def cells(self) -> list[str]:
        """The scores and the change, as a table shows them."""
        changed = "-" if self.change is None else f"{100 * self.change:+.2f}"
        return [*map(format_share, self.scores), changed]


def class_rows(report: Mapping[str, Any], names: Sequence[str]) -> list[ClassRow]:
    """Scores for each class, those that lose most first; empty without classes.

    Args:
        report: The report.
        names: Names of the models: teacher, student and rivals.

    Example:
        >>> report = {
        ...     "teacher": {"by_class": {"cat": 0.75, "dog": 0.5}},
        ...     "student": {"by_class": {"cat": 0.5, "dog": 0.75}},
        ... }
        >>> [(row.name, row.change) for row in class_rows(report, ["teacher", "student"])]
        [('cat', -0.25), ('dog', 0.25)]
    """
    models, rows = [report[name] for name in names], []
    for key in dict.fromkeys(key for model in models for key in model if key.endswith("by_class")):
        output = key.removesuffix("by_class").rstrip("_")
        known = [model.get(key) or {} for model in models]
        for name in dict.fromkeys(name for each in known for name in each):
            scores = tuple(each.get(name) for each in known)
            before, after = scores[:2]
            change = None if before is None or after is None else after - before
            rows.append(ClassRow(f"{output}: {name}" if output else name, scores, change))
    return sorted(rows, key=lambda row: 0.0 if row.change is None else row.change)[:_MOST_ROWS]


def worst_in_words(rows: Sequence[ClassRow]) -> str:
    """The classes whose score falls most, in a line; empty if none falls.

    >>> worst_in_words([ClassRow("cat", (0.75, 0.5), -0.25), ClassRow("dog", (0.5, 0.75), 0.25)])
    'classes that lose most: cat 75.00 % to 50.00 %'
    """
    lost = [row for row in rows if row.change is not None and row.change < 0][:_NAMED]
    told = [f"{row.name} {format_share(row.scores[0])} to {format_share(row.scores[1])}" for row in lost]
    return f"classes that lose most: {', '.join(told)}" if told else ""
