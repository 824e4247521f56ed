"""Size and time of each layer, teacher beside student, for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerRow:
    """A layer in one format.

    Attributes:
        name: Name of the layer.
        teacher_bytes: Bytes of its weights in the teacher; `None` if the teacher doesn't have it.
        student_bytes: The same in the student.
        teacher_ms: Its time in the teacher in milliseconds; `None` if that isn't known.
        student_ms: The same in the student.
    """

    name: str
    teacher_bytes: int | None
    student_bytes: int | None
    teacher_ms: float | None
    student_ms: float | None


@dataclass(frozen=True)
class LayerTable:
    """All layers in one format.

    Attributes:
        format: Name of the format.
        rows: Layers in the teacher's order, then those of the student alone.
        timed: Whether times of layers are known.
    """

    format: str
    rows: tuple[LayerRow, ...]
    timed: bool

    @property
    def most_bytes(self) -> int:
        """Size of the largest layer, at least 1."""
        return max(1, *(each or 0 for row in self.rows for each in (row.teacher_bytes, row.student_bytes)))

    @property
    def most_ms(self) -> float:
        """Longest time of a layer, above 0."""
        return max(1e-9, *(each or 0.0 for row in self.rows for each in (row.teacher_ms, row.student_ms)))


def layer_tables(report: Mapping[str, Any]) -> list[LayerTable]:
    """A table for each format of which the report knows the layers; empty for reports of earlier versions.

    Example:
        >>> file = {"layers": [{"name": "stem", "operator": "CONV_2D", "bytes": 12, "milliseconds": 0.5}]}
        >>> report = {"teacher": {"tflite": {"fp32": file}}, "student": {"tflite": {"fp32": file}}}
        >>> layer_tables(report)[0].rows[0]
        LayerRow(name='stem', teacher_bytes=12, student_bytes=12, teacher_ms=0.5, student_ms=0.5)
    """
    tables = []
    for format, file in report["student"]["tflite"].items():
        teacher = _by_name(report["teacher"]["tflite"].get(format) or {})
        student = _by_name(file)
        if not student:
            continue
        rest = list(student)[-1]  # the last entry is everything that isn't a layer
        names = [*(name for name in dict.fromkeys([*teacher, *student]) if name != rest), rest]
        rows = tuple(
            LayerRow(name or "unnamed", was[0], now[0], was[1], now[1])
            for name in names
            for was, now in [(teacher.get(name, (None, None)), student.get(name, (None, None)))]
        )
        tables.append(LayerTable(format, rows, timed=any(row.student_ms is not None for row in rows)))
    return tables


def _by_name(file: Mapping[str, Any]) -> dict[str, tuple[int, float | None]]:
    """Bytes and milliseconds by layer; a separable convolution has two operators of one name."""
    found: dict[str, tuple[int, float | None]] = {}
    for layer in file.get("layers") or ():
        size, time = found.get(layer["name"], (0, 0.0))
        times = (time, layer["milliseconds"])
        found[layer["name"]] = (size + layer["bytes"], None if None in times else sum(times))
    return found
