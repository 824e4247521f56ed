"""Checks random shapes of random networks: students build, costs are exact, supernets agree with students.

    python -m benchmarks.random_networks [--cases=1000] [--seed=0] [--only=SEED]

Each case is a small network of random parts, a search space with random options, and a random shape. The student must
build and cost what the cost model says, in multiply-adds and parameters. With the shape's one-hot choices, the supernet
must give the student's logits, in inference and in training. Failures are listed with their seeds. `--only` runs a
single seed again, prints the network and raises the error. Exits with 1 if any case failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.random_cases import Case, can_be_searched, check, draw_case
from benchmarks.random_parts import BLOCK_KINDS

#: Distance between the first seeds of consecutive runs.
SEEDS_APART = 1_000_000


def main() -> None:
    options = _parse()
    if options.only is not None:
        check(_describe(_case(options.only)))
        return
    console = Console(width=160)
    started = time.perf_counter()
    first = SEEDS_APART * options.seed
    cases, refused, failures = run(range(first, first + options.cases), console)
    _print(console, cases, refused, failures)
    console.print(f"{options.cases} cases, {time.perf_counter() - started:.0f} s, {len(failures)} failed")
    sys.exit(bool(failures))


def run(seeds: range, console: Console) -> tuple[Counter, Counter, dict[int, tuple[str, str]]]:
    """Checks the cases of all seeds; returns counts of cases and of refused cases by kind, and failures by seed."""
    # These warnings are about repeated tracing and about softmax over a single channel, both of which are intended.
    tf.get_logger().setLevel("ERROR")
    warnings.filterwarnings("ignore", "You are using a softmax over axis -1")
    cases, refused, failures = Counter(), Counter(), {}
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("networks", total=len(seeds), failed=0)
        for seed in seeds:
            kind, searchable, problem = _attempt(seed)
            cases[kind] += 1
            refused[kind] += not searchable
            if problem is not None:
                failures[seed] = (kind, f"{type(problem).__name__}: {problem}")
                _print_failure(progress.console, seed, *failures[seed])
            progress.update(task, advance=1, failed=len(failures))
    return cases, refused, failures


def _attempt(seed: int) -> tuple[str, bool, Exception | None]:
    """Checks a case; returns its kind, whether it has anything to search, and its error, if any."""
    kind = "not built"
    try:
        case = _case(seed)
        kind = case.kind
        if not can_be_searched(case):
            return kind, False, None
        check(case)
    except Exception as error:  # any error: the remaining cases must still run
        return kind, True, error
    return kind, True, None


def _case(seed: int) -> Case:
    # Frees earlier networks and numbers layers from 1, so that a case doesn't depend on the cases before it.
    keras.backend.clear_session()
    return draw_case(seed)


def _describe(case: Case) -> Case:
    print(f"{case.kind}, options {case.options}, seed {case.seed}")
    case.model.summary(line_length=120, show_trainable=False)
    return case


def _print(console: Console, cases: Counter, refused: Counter, failures: dict[int, tuple[str, str]]) -> None:
    table = Table("kind", "cases", "nothing to search", "failed")
    failed = Counter(kind for kind, _ in failures.values())
    for kind in (*BLOCK_KINDS, *sorted(set(cases) - set(BLOCK_KINDS))):
        table.add_row(kind, *(str(counts[kind]) for counts in (cases, refused, failed)))
    console.print(table)
    for seed, (kind, problem) in failures.items():
        _print_failure(console, seed, kind, problem)


def _print_failure(console: Console, seed: int, kind: str, problem: str) -> None:
    console.print(f"--only={seed} ({kind}): {problem}", highlight=False, markup=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="networks to check")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run; case N has seed 1,000,000 * SEED + N")
    parser.add_argument("--only", type=int, help="seed of a single case to run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
