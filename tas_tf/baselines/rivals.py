"""The students that a report compares with the searched one, and how each differs from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rival:
    """A student that differs from the searched one in one respect.

    Attributes:
        name: Name in the report and of the folder.
        shape: `searched`, `full`, or a kind of baseline.
        kd: Whether the rival learns from the teacher, if the searched student does.
    """

    name: str
    shape: str
    kd: bool = True


#: Values of `--rivals`.
RIVALS = {
    rival.name: rival
    for rival in (
        Rival("random", "random"),
        Rival("uniform", "uniform"),
        Rival("l1", "l1"),
        Rival("fpgm", "fpgm"),
        Rival("full_kd", "full"),
        Rival("no_kd", "searched", kd=False),
    )
}
