"""The flagfile of a run: written beside its results, read back by commands that go on with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from absl import flags

from tas_tf.cost.budget import Budget
from tas_tf.files import write_bytes
from tas_tf.runs.run import Run
from trainers import options

#: Flags of one call rather than of a run, and, last, those that the run's own places stand in for.
_NOT_KEPT = ("overwrite", "dry_run", "json", "progress", "compare", "kind", "run_dir", "teacher_from", "shape")


def write_flags(
    run: Run, used: Collection[str], budgets: Sequence[Budget], places: Mapping[str, Any], *, keeps_earlier: bool
) -> None:
    """Writes the settings of a run.

    Args:
        run: Its folder is there.
        used: Flags that count as they are now, given or not.
        budgets: Of the run.
        places: Values by flag that stand for the run's own places; what is empty is left out.
        keeps_earlier: Whether flags that are neither given nor used stay as they were written before.
    """
    earlier = _read_flags(run) if keeps_earlier else {}
    lines = []
    for holder in (holder for group in options.GROUPS.values() for holder in group):
        flag = flags.FLAGS[holder.name]
        if holder.name in earlier and not flag.present and holder.name not in used:
            lines += earlier[holder.name]
        elif holder.name == "budget":
            lines += [f"--budget={budget}" for budget in budgets]
        elif holder.name not in _NOT_KEPT:
            lines += [line for line in flag.serialize().splitlines() if line]
    lines += [f"--{name}={value}" for name, value in places.items() if value]
    write_bytes(run.flags_cfg, ("\n".join(lines) + "\n").encode())


def restore_flags(run: Run) -> None:
    """Sets flags that weren't given to what a run was made with, as its flagfile says."""
    if run.flags_cfg.exists():
        given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
        lines = [line for line in run.flags_cfg.read_text().splitlines() if _flag_name(line) not in given]
        flags.FLAGS(["", *lines])


def _read_flags(run: Run) -> dict[str, list[str]]:
    """Lines of a run's flagfile by flag, without those that places stand in for."""
    found: dict[str, list[str]] = {}
    for line in run.flags_cfg.read_text().splitlines() if run.flags_cfg.exists() else ():
        found.setdefault(_flag_name(line), []).append(line)
    return {name: lines for name, lines in found.items() if name not in _NOT_KEPT}


def _flag_name(line: str) -> str:
    name = line.lstrip("-").partition("=")[0]
    return name if name in flags.FLAGS else name.removeprefix("no")
