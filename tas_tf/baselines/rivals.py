"""Which other students a report sets beside the one that was searched, and what is different about each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rival:
    """A student trained like the searched one but for one thing.

    Attributes:
        name: Of its folder and in the report.
        shape: `searched`, `full`, or a kind of baseline.
        kd: Whether it learns from the teacher, if the searched one does.
    """

    name: str
    shape: str
    kd: bool = True


#: What `--rivals` may name.
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
