"""Trains every method at one budget, several seeds each, with distillation and without, and prints the table.

    python -m benchmarks.results [--run_dir=runs/results] [--seeds=0,1,2] [--flagfile=flags/results.cfg]

Every network is trained by the same schedule on the same images; what differs is where its shape comes from. Each step
is a command of its own that is skipped once it is done: an interrupted run goes on with the same command. The table is
also written as Markdown into the run folder.
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

#: Where shapes come from: the command that finds one, and what it is told beside the common flags.
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
    """Everything that has to run for one seed: module, run folder, arguments."""
    teacher = folder / "teacher"
    yield "trainers.teacher", teacher, ()
    for method, (kind, own) in METHODS.items():
        run_dir, taught = folder / method, (f"--teacher_from={teacher}",)
        # The axes of a search bind the space of its student as well.
        axes = tuple(flag for flag in own if flag.startswith("--axes"))
        yield f"trainers.{kind}", run_dir, (*taught, *own)
        yield "trainers.distill", run_dir, (*taught, *axes)
        shape = f"--shape={Run(run_dir).search_shape}"
        yield "trainers.distill", folder / f"{method}{_WITHOUT_KD}", (*taught, *axes, shape, "--nokd")
        yield "export.student", run_dir, (*taught, *axes)


def trained(root: Path, seeds: list[int]) -> Iterator[Path]:
    """The run folders of all networks."""
    for seed in seeds:
        yield root / f"seed{seed}" / "teacher"
        for method in METHODS:
            yield root / f"seed{seed}" / method
            yield root / f"seed{seed}" / f"{method}{_WITHOUT_KD}"


def markdown(rows: dict[str, Row]) -> str:
    """The table: a line for each method, mean and sample standard deviation over seeds."""
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
    parser.add_argument("--run_dir", default="runs/results", help="folder of all runs")
    parser.add_argument("--flagfile", default="flags/results.cfg", help="settings that all share")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="comma between")
    return parser.parse_args()


def _seeds(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
