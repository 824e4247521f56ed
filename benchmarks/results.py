"""Compares ways to find a student that cost the same in all, and keeps what each run measured.

    python -m benchmarks.results [--cases=resnet14,resnet20] [--budgets=macs:0.25] [--methods=recipe,uniform]
        [--seeds=0,1,2] [--table]

Every method gets what the default recipe computes: images forward and backward, times multiply-adds. What a method
spends to find its shape, it doesn't have for its student's training. All students learn from the same teacher in the
same way.

What a finished run measured is a small JSON file in benchmarks/records, which belongs in the repository: the same
command goes on from them on any machine. At the end, it writes tables and a plot into docs/; `--table` does only that.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from benchmarks.cell import Case, Cell, Start, Variant
from benchmarks.records import RECIPE, record_path, tables, write_results
from tas_tf.deploy.latency import time_interleaved
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.files import read_json, write_json
from tas_tf.proposals.drawn import drawn_proposals
from tas_tf.proposals.sensitivities import least_damaged
from tas_tf.proposals.shortlist import Proposal
from tas_tf.proposals.uniform import depth_choices
from tas_tf.race.contest import find_by_race
from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.network import train_network

#: Under a budget of latency: the default recipe under one of multiply-adds that happens to be as fast.
AS_FAST = "recipe_macs"
# Budgets that are tried for that, and how near the latency has to be.
_TRIES, _WITHIN = 8, 0.03
_SHORT = (RECIPE, "tas", "uniform", "uniform_depths", "random_best")
CASES = {
    "resnet14": Case(
        "resnet14",
        6000,
        ("macs:0.5", "macs:0.25", "macs:0.125", "latency:0.25"),
        (*_SHORT, "tas_inherited", "random", "fpgm", "sensitivities"),
        ablated="macs:0.25",
    ),
    "resnet20": Case("resnet20", 20_000, ("macs:0.25",), _SHORT),
    "mobilenetv2": Case(
        "keras.applications.MobileNetV2",
        20_000,
        ("macs:0.25",),
        _SHORT,
        epochs=20,
        teacher_epochs=19,
        image_size=32,
        preprocess="scale_-1_1",
    ),
}


def race_as_recipe(cell: Cell) -> tuple[Start, float]:
    """The default recipe up to its student's training: the winner of its race, and the factor of the learning rate."""
    spent, rounds = [cell.damage_cost], {}

    def add(lap, kept) -> None:
        spent.append(cell.steps_cost(cell.macs(lap.proposal.shape), lap.steps))
        rounds[lap.round] = cell.asking_cost(lap.steps)  # once for all its shapes

    found: list[Proposal] = []
    if cell.race.searched:
        searched, cost = cell.search(from_teacher=True)
        spent.append(cost)
        probabilities = searched.probabilities
        found = drawn_proposals(
            cell.cost,
            searched.shape,
            probabilities,
            limit=cell.limit,
            count=cell.race.searched,
            meter=cell.meter,
            seed=cell.seed,
        )
    result = find_by_race(
        *(cell.cost, cell.limit, cell.data, cell.training, cell.race),
        model=cell.ranked,
        found=found,
        proposing={"seed": cell.seed, "meter": cell.meter},
        say=functools.partial(print, flush=True),
        teacher=cell.taught_by,
        strategy=cell.strategy,
        verbose=0,
        on_lap=add,
    )
    return Start(result.winner.shape, result.network, sum(spent) + sum(rounds.values())), result.rate_factor


def _tas(cell: Cell, *, from_teacher: bool) -> Start:
    found, spent = cell.search(from_teacher=from_teacher)
    network = None
    if from_teacher:
        network = build_student(cell.space, found.shape)
        inherit_from_supernet(network, found.supernet, cell.space, found.shape)
    return Start(found.shape, network, spent)


def _uniform_depths(cell: Cell) -> Start:
    depths = depth_choices(cell.space, 8)
    return cell.best_of([cell.uniform(depths=one, fill=True) for one in depths])


def _as_fast(cell: Cell, ours: dict) -> Start:
    """The default recipe under a budget of multiply-adds whose student is as fast as the one under the cell's latency.

    Which budget that is depends on the shape that wins, so races are run until one does; only the last is charged.
    """
    wanted = cell.meter(Shape.from_counts(cell.space, ours["widths"], ours["depths"]))
    share = ours["macs"] / ours["full_macs"]
    for _ in range(_TRIES):
        start, _ = race_as_recipe(Cell(cell.case, f"macs:{share:.4f}", cell.seed, cell.folder))
        taken = cell.meter(start.shape) / wanted
        print(f"macs:{share:.4f}: {taken:.3f} of the latency", flush=True)
        if abs(taken - 1) <= _WITHIN:
            return start
        share /= taken
    raise RuntimeError(f"None of {_TRIES} budgets of multiply-adds is as fast within {_WITHIN:.0%}.")


#: Methods by name. The default recipe also finds the factor of the learning rate that all students use.
METHODS: dict[str, Callable[[Cell], Start]] = {
    RECIPE: lambda cell: race_as_recipe(cell)[0],
    "uniform": lambda cell: cell.from_teacher(cell.uniform(fill=True)),
    "uniform_depths": _uniform_depths,
    "tas": lambda cell: _tas(cell, from_teacher=False),
    "tas_inherited": lambda cell: _tas(cell, from_teacher=True),
    "random": lambda cell: cell.from_teacher(cell.random(0)),
    "random_best": lambda cell: cell.best_of([cell.random(number) for number in range(8)]),
    "fpgm": lambda cell: cell.from_teacher(cell.uniform(fill=True), criterion="fpgm"),
    "sensitivities": lambda cell: cell.from_teacher(
        cell.within(lambda limit: least_damaged(cell.cost, cell.damage, limit=limit)), spent=cell.damage_cost
    ),
}


#: Methods with one part changed or left out; `searched` adds the differentiable search.
VARIANTS = {
    "uniform_asking": ("uniform", Variant(training={"views": 0})),
    "without_importance": (RECIPE, Variant(importance="none")),
    "coupled_trunk": (RECIPE, Variant(couple_trunk=True)),
    "without_race": (RECIPE, Variant(race={"proposals": 1})),
    "without_teacher": (RECIPE, Variant(kd=False)),
    "without_rates": (RECIPE, Variant(race={"rate_factors": (1.0,)})),
    "without_views": (RECIPE, Variant(training={"views": 0})),
    "searched": (RECIPE, Variant(race={"searched": 2})),
}


def main() -> None:
    options = _parse()
    if not options.table:
        for seed, name in itertools.product(options.seeds, options.cases):
            for budget in options.budgets or CASES[name].budgets:
                _run_cell(name, budget, seed, options)
    write_results()
    print("\n".join(tables()))


def _run_cell(name: str, budget: str, seed: int, options: argparse.Namespace) -> None:
    case = CASES[name]
    methods = options.methods or [*case.methods, *(VARIANTS if budget == case.ablated else ())]
    if not options.methods and budget.startswith("latency"):
        methods.append(AS_FAST)
    missing = [method for method in methods if not record_path(name, budget, method, seed).exists()]
    if not missing:
        return
    cell = Cell(case, budget, seed, Path(options.teachers))
    # The others need the learning rate that the recipe found.
    for method in sorted(missing, key=lambda one: one != RECIPE):
        print(f"== {name} {budget} seed {seed}: {method}", flush=True)
        write_json(record_path(name, budget, method, seed), _measure(cell, name, budget, method))


def _measure(cell: Cell, name: str, budget: str, method: str) -> dict:
    started = time.monotonic()
    base, variant = VARIANTS.get(method, (method, None))
    if variant is not None:
        cell = Cell(cell.case, budget, cell.seed, cell.folder, variant)
    computed = 1.0
    if base == RECIPE:
        start, factor = race_as_recipe(cell)
    else:
        ours = read_json(record_path(name, budget, RECIPE, cell.seed))
        start = _as_fast(cell, ours) if base == AS_FAST else METHODS[base](cell)
        # Shapes that are as fast may have more multiply-adds.
        factor, computed = ours["rate_factor"], max(1.0, ours["computed"])
    factor = factor if start.network is not None else 1.0  # fresh weights need a high rate
    macs = cell.macs(start.shape)
    epochs = cell.case.epochs if method == RECIPE else cell.epochs_for(macs, start.spent, computed=computed)
    trained = train_network(
        cell.space,
        start.shape,
        cell.data,
        replace(cell.training, epochs=epochs, lr=cell.training.lr * factor),
        strategy=cell.strategy,
        teacher=cell.taught_by,
        start=start.network,
        verbose=2,
    )
    seconds = time.monotonic() - started
    return {
        "accuracy": trained.metrics["accuracy"],
        "loss": trained.metrics["loss"],
        "teacher_accuracy": cell.teacher_accuracy,
        "macs": macs,
        "full_macs": cell.macs.full,
        "params": trained.metrics["params"],
        "epochs": epochs,
        "rate_factor": factor,
        "computed": (start.spent + cell.training_cost(macs, epochs)) / cell.total,
        "seconds": round(seconds, 1),
        "depths": list(start.shape.depths.values()),
        "widths": list(start.shape.widths.values()),
        **_latencies(cell, trained.model),
    }


def _latencies(cell: Cell, student: keras.Model) -> dict:
    """Milliseconds of one image for student and teacher, timed in turns."""
    (images, _), *_ = cell.data.calibration(100, 1).as_numpy_iterator()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("fp32", "int8"):
            calls = {}
            for name, model in (("student", student), ("teacher", cell.teacher)):
                path = Path(folder) / f"{name}_{kind}.tflite"
                loaded = TFLiteModel(export_tflite(model, path, format=kind, calibration=images))
                calls[name] = loaded.bind(images[:1])
            timed = time_interleaved(calls, rounds=200)
            found |= {f"{kind}_ms": timed["student"].median_ms, f"teacher_{kind}_ms": timed["teacher"].median_ms}
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", default="runs/teachers", help="folder for the teachers")
    parser.add_argument("--cases", type=_names, default=list(CASES), help="comma-separated cases")
    parser.add_argument("--budgets", type=_names, default=[], help="comma-separated budgets; by default all")
    parser.add_argument(
        "--methods", type=_names, default=[], help="comma-separated methods; by default those of the case"
    )
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only makes tables and plot from what is kept")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
