"""Trains every method at one budget with several seeds, with and without distillation, and prints a table.

    python -m benchmarks.results [--run_dir=runs/results] [--seeds=0,1,2] [--flagfile=flags/results.cfg]

All networks are trained with the same schedule on the same images; only the origin of their shapes differs. Each step
is a separate command that is skipped if it is done, so the same command continues an interrupted run. The table is also
written to the run folder as Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tas_tf.files import write_bytes
from tas_tf.report.comparison import Row, cells, compare_runs
from tas_tf.report.formatting import format_ms
from tas_tf.runs.run import Run

#: Origins of shapes: the command that finds a shape, and its flags besides the common ones.
METHODS = {
    "tas": ("search", ()),
    "tas_width": ("search", ("--axes=width",)),
    "tas_depth": ("search", ("--axes=depth",)),
    "uniform": ("baseline", ("--kind=uniform",)),
    "random": ("baseline", ("--kind=random",)),
    "l1": ("baseline", ("--kind=l1",)),
}
_WITHOUT_KD = "_no_kd"


def main() -> None:
    options = _parse()
    root = Path(options.run_dir)
    for seed in options.seeds:
        for module, run_dir, arguments in commands(root / f"seed{seed}"):
            _run(module, f"--flagfile={options.flagfile}", f"--seed={seed}", f"--run_dir={run_dir}", *arguments)
    rows = {row.name: row for row in compare_runs(list(trained(root, options.seeds)))}
    text = markdown(rows)
    write_bytes(root / "table.md", text.encode())
    print(text)


def commands(folder: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Yields all commands for one seed: module, run folder, arguments."""
    teacher = folder / "teacher"
    yield "trainers.teacher", teacher, ()
    for method, (kind, own) in METHODS.items():
        run_dir, taught = folder / method, (f"--teacher_from={teacher}",)
        # The axes of a search also apply to the search space of its student.
        axes = tuple(flag for flag in own if flag.startswith("--axes"))
        yield f"trainers.{kind}", run_dir, (*taught, *own)
        yield "trainers.distill", run_dir, (*taught, *axes)
        shape = f"--shape={Run(run_dir).search_shape}"
        yield "trainers.distill", folder / f"{method}{_WITHOUT_KD}", (*taught, *axes, shape, "--nokd")
        yield "export.student", run_dir, (*taught, *axes)


def trained(root: Path, seeds: list[int]) -> Iterator[Path]:
    """Yields the run folders of all networks."""
    for seed in seeds:
        yield root / f"seed{seed}" / "teacher"
        for method in METHODS:
            yield root / f"seed{seed}" / method
            yield root / f"seed{seed}" / f"{method}{_WITHOUT_KD}"


def markdown(rows: dict[str, Row]) -> str:
    """Returns the table: a line for each method, with mean and sample standard deviation over seeds."""
    teacher, measured = rows["teacher"], rows[next(iter(METHODS))]
    # The teacher is timed in turns with each student.
    latency = measured.figures.get("teacher_latency_ms")
    accuracy, macs, params, *_ = cells(teacher)
    lines = [
        "| shape | with KD | labels only | MACs | parameters | latency | speed-up | search |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| teacher | | {accuracy} | {macs} | {params} | {format_ms(latency.mean) if latency else ''} | | |",
    ]
    for method in METHODS:
        taught, alone = rows[method], rows[f"{method}{_WITHOUT_KD}"]
        accuracy, *others = cells(taught)
        seconds = taught.figures.get("search_seconds")
        shown = [accuracy, cells(alone)[0], *others, "" if seconds is None else f"{seconds.mean:.0f} s"]
        lines.append(f"| {method} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _run(module: str, *arguments: str) -> None:
    print(f"== {module} {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", module, *arguments], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if done.returncode:
        sys.exit(done.returncode)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", default="runs/results", help="folder for all runs")
    parser.add_argument("--flagfile", default="flags/results.cfg", help="settings of all runs")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="comma-separated seeds")
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
