"""Compares predicted with measured latencies of shapes that the model never saw, and checks that budgets are kept.

    python -m benchmarks.latency [--networks=resnet20,MobileNetV2] [--formats=fp32,int8] [--threads=1,2]
        [--teachers=FOLDER] [--table]

For each network, format and number of threads, 40 shapes are measured to learn the model. Then it predicts 30 random
shapes, and 10 decoded from random probabilities. For some networks, shapes are found for half and a quarter of the
latency, 10 each, and timed once more in turns with the unpruned network. For ResNet-56, others that are as fast are
listed beside the published shape: uniform ones, and the one that the default recipe finds. Its teacher is trained for
six epochs on 10,000 images of Fashion-MNIST, and its race is that of students of ten epochs.

What was measured is kept in benchmarks/records/latency, and the table in docs/RESULTS.md is made from it; `--table`
does only that.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy import stats

from benchmarks.cell import Case, Cell
from benchmarks.decoding import random_probabilities
from benchmarks.records import RECIPE, RECORDS
from benchmarks.results import race_as_recipe
from tas_tf.cli.document import with_lines
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.files import read_json, write_bytes, write_json
from tas_tf.latency.measure import Target, time_shapes
from tas_tf.latency.meter import LatencyMeter
from tas_tf.proposals.uniform import cheapest_uniform_shape, depth_choices, uniform_shape
from tas_tf.published import PUBLISHED, shape_file
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import find_within
from tas_tf.zoo.loading import load_network

NETWORKS = {
    "resnet20": ("resnet20", 32),
    "MobileNetV2": ("keras.applications.MobileNetV2", 96),
    "resnet56": ("resnet56", 32),
    "EfficientNetB0": ("keras.applications.EfficientNetB0", 96),
}
_PUBLISHED = "cifar10-resnet56"
_WITH_BUDGETS = ("resnet20", "MobileNetV2")
_UNSEEN, _DECODED, _BUDGETS = 30, 10, 10
_DOCS = Path(__file__).parents[1] / "docs" / "RESULTS.md"
_BEGIN, _END = "<!-- latency: made by benchmarks/latency.py -->", "<!-- end of latency -->"


def main() -> None:
    options = _parse()
    for name in () if options.table else options.networks:
        for format in options.formats:
            for threads in options.threads:
                path = RECORDS / "latency" / f"{name}_{format}_{threads}.json"
                if not path.exists():
                    print(f"== {name}, {format}, threads: {threads}", flush=True)
                    write_json(path, measure(name, Target(format, threads)))
    for format in () if options.table or "resnet56" not in options.networks else options.formats:
        path = RECORDS / "latency" / "published" / f"{format}.json"
        if not path.exists():
            write_json(path, measure_published(format, options.teachers))
    lines = [*_table(), *_published_table()]
    write_bytes(_DOCS, with_lines(_DOCS.read_text(), lines, _BEGIN, _END).encode())
    print("\n".join(lines))


def measure(name: str, target: Target) -> dict:
    """Measures one network in one format: errors of predictions, and how budgets are kept."""
    network, image_size = NETWORKS[name]
    space = SearchSpace.from_model(load_network(network, image_size=image_size))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # measured anew
        started = time.monotonic()
        meter = LatencyMeter(space, target, say=lambda text: print(text, flush=True))
        cost = meter.cost_model()
        seconds = time.monotonic() - started
        rng = np.random.default_rng(7)
        shapes = [Shape.random(space, 10_000 + seed) for seed in range(_UNSEEN)]
        shapes += [_decoded(cost, rng, rng.uniform(0.2, 0.7)) for _ in range(_DECODED)]
        measured = np.array([timing.ratio for timing in time_shapes(space, shapes, target)])
        predicted = np.array([cost(shape) for shape in shapes]) / cost.full
        kept = _budgets(meter, rng) if name in _WITH_BUDGETS else {}
    return {
        "full_ms": meter.table.full_ms,
        "noise": meter.table.noise,
        "device": meter.table.device,
        "runtime": meter.table.runtime,
        "seconds": round(seconds, 1),
        "predicted": predicted.tolist(),
        "measured": measured.tolist(),
        "stated": {"mean": meter.error.mean, "worst": meter.error.worst},
        "budgets": kept,
    }


def measure_published(format: str, teachers: Path) -> dict:
    """The shape that the paper's authors published for ResNet-56, and others that are as fast."""
    known = PUBLISHED[_PUBLISHED]
    size = {"image_size": known.image_size, "latency_format": format}
    case = Case(known.network, 10_000, (), (), epochs=10, teacher_epochs=5, **size)
    shape = Shape.load(shape_file(f"published/{_PUBLISHED}"))
    space = SearchSpace.from_model(Cell(case, "macs:0.5", 0, teachers).teacher, units=shape.widths)
    meter, macs = LatencyMeter(space, Target(format), say=lambda text: print(text, flush=True)), CostModel(space)
    cost, limit = meter.cost_model(), meter(shape)
    found = {"published": shape}
    for depths in depth_choices(space, 4):

        def find(allowed: int, depths: tuple = depths) -> Shape:
            return uniform_shape(cost, limit=allowed, depths=depths, fill=True)

        def cheapest(depths: tuple = depths) -> Shape:
            return cheapest_uniform_shape(cost, depths=depths)

        name = f"uniform {'/'.join(map(str, depths))}"
        found[name] = find_within(find, cost, limit, meter, cheapest=cheapest)[0]
    rows = {name: _row(one, macs, meter) for name, one in found.items()}
    cell = Cell(case, f"latency:{rows['published']['latency']:.4f}", 0, teachers)
    start, _ = race_as_recipe(cell)
    return {"published": rows.pop("published"), RECIPE: _row(start.shape, cell.macs, cell.meter), **rows}


def _row(shape: Shape, macs: CostModel, meter: LatencyMeter) -> dict:
    """Shares of the unpruned network's multiply-adds and latency, and blocks of each stage."""
    return {
        "macs": macs(shape) / macs.full,
        "latency": meter(shape) / meter.cost_model().full,
        "depths": list(shape.depths.values()),
    }


def _decoded(cost: CostModel, rng: np.random.Generator, share: float) -> Shape:
    limit = int(share * cost.full)
    return decode(cost, *random_probabilities(cost.space, rng, 1.0), limit=limit, tolerance=limit // 20)


def _budgets(meter: LatencyMeter, rng: np.random.Generator) -> dict[str, list[float]]:
    """Shares of the unpruned network's latency that shapes found for a budget take when they are timed again."""
    cost, found = meter.cost_model(), {}
    for share in (0.5, 0.25):
        limit, shapes = int(share * cost.full), []
        for _ in range(_BUDGETS):
            probabilities = random_probabilities(cost.space, rng, 1.0)

            def find(allowed: int, probabilities: tuple = probabilities) -> Shape:
                return decode(cost, *probabilities, limit=allowed, tolerance=allowed // 20)

            shapes.append(find_within(find, cost, limit, meter)[0])
        found[str(share)] = [timing.ratio for timing in time_shapes(cost.space, shapes, meter.target)]
    return found


def _table() -> Iterator[str]:
    yield "| network | format | threads | unpruned | mean error | worst | rank correlation | budgets kept | seconds |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for path in sorted((RECORDS / "latency").glob("*.json")):
        name, format, threads = path.stem.split("_")
        record = read_json(path)
        predicted, measured = np.array(record["predicted"]), np.array(record["measured"])
        errors = np.abs(predicted / measured - 1)
        rank = stats.spearmanr(predicted, measured)[0]
        figures = [
            *(name, format, threads, f"{record['full_ms']:.3g} ms", f"{errors.mean():.1%}", f"{errors.max():.1%}"),
            *(f"{rank:.3f}", _kept(record["budgets"]), f"{record['seconds']:.0f}"),
        ]
        yield f"| {' | '.join(figures)} |"


def _published_table() -> Iterator[str]:
    for path in sorted((RECORDS / "latency" / "published").glob("*.json")):
        yield ""
        yield f"| {_PUBLISHED}, {path.stem} | MACs | latency | blocks |"
        yield "| --- | ---: | ---: | --- |"
        for name, one in read_json(path).items():
            depths = "/".join(map(str, one["depths"]))
            yield f"| {name} | {one['macs']:.3f} | {one['latency']:.3f} | {depths} |"


def _kept(budgets: dict[str, Sequence[float]]) -> str:
    taken = [(value, float(share)) for share, values in budgets.items() for value in values]
    return f"{sum(value <= share for value, share in taken)} of {len(taken)}" if taken else ""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=_names, default=list(NETWORKS), help=f"some of {', '.join(NETWORKS)}")
    parser.add_argument("--formats", type=_names, default=["fp32", "int8"], help="formats of the files")
    parser.add_argument("--threads", type=lambda text: [*map(int, _names(text))], default=[1], help="such as 1,2")
    parser.add_argument("--teachers", type=Path, default=Path("runs/teachers"), help="folder for the trained ResNet-56")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
