"""Measures how close decoded shapes come to the budget and to the most probable shape within it.

    python -m benchmarks.decode [--count=500] [--kinds=macs,params,bytes] [--seed=0] [--json]

Decodes random logits, from almost uniform to almost one-hot, at random budgets between the smallest reachable cost and
the unpruned network's. No cost may exceed its budget. In small networks, the decoded shapes are also compared with the
best of all shapes. There, the decoder must not try all shapes, as it normally would, but use the method for large
networks. Exits with 1 if any cost exceeded its budget.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.decoding import Decoding, all_shapes, decode_randomly, gap_to_the_optimum
from benchmarks.small_networks import make, residual_network
from tas_tf.cost.cost_model import COST_KINDS, CostModel
from tas_tf.decode import decode as decode_module
from tas_tf.graph.graph import Graph
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network

#: Image sizes by network.
LARGE = {"resnet56": 32, "keras.applications.MobileNetV2": 96, "keras.applications.EfficientNetB0": 96}
#: Networks, each with a width divisor that leaves few enough shapes to try all.
SMALL: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "two stages": (residual_network, 4),
    "residual": (lambda: make("residual"), 5),
    "preactivation": (lambda: make("preactivation"), 3),
    "dense": (lambda: make("concat"), 1),
    "gate": (lambda: make("gate_of_convs"), 1),
}
#: Loss of log-probability that rounding can cause, in nats.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Row:
    """Results of decoding for one network and kind of cost.

    Attributes:
        network: Name of the network.
        kind: Kind of cost.
        lowest: Smallest reachable cost, as a share of the unpruned network's.
        decoded: Number of decoded shapes.
        over: Number of shapes above the budget.
        within: Share of shapes that are within the tolerance below the budget.
        mean_below: Mean distance below the budget, as a share of the unpruned network's cost.
        largest_below: Largest distance below the budget, in the same unit.
        seconds: Median CPU seconds of one decoding.
    """

    network: str
    kind: str
    lowest: float
    decoded: int
    over: int
    within: float
    mean_below: float
    largest_below: float
    seconds: float


@dataclass(frozen=True)
class SmallRow(Row):
    """Results for a small network, compared with all of its shapes.

    Attributes:
        shapes: Number of shapes of the network.
        comparable: Number of budgets with a shape within the tolerance.
        missed: Number of comparable budgets where the decoded shape is outside the tolerance.
        optimal: Share of the other comparable budgets where the decoded shape is the most probable one.
        mean_gap: Mean loss of log-probability against the most probable shape, in nats.
        largest_gap: Largest loss, in nats.
    """

    shapes: int
    comparable: int
    missed: int
    optimal: float
    mean_gap: float
    largest_gap: float


def main() -> None:
    options = _parse()
    console = Console(width=160)
    with Progress(console=Console(stderr=True)) as progress:
        large = [measure(name, kind, options, progress) for name in options.networks for kind in options.kinds]
        small = [measure_small(name, kind, options, progress) for name in SMALL for kind in options.kinds]
    if options.json:
        json.dump({"networks": list(map(asdict, large)), "small": list(map(asdict, small))}, sys.stdout, indent=1)
        print()
    else:
        _print(console, large, small)
    sys.exit(any(row.over for row in (*large, *small)))


def measure(name: str, kind: str, options: argparse.Namespace, progress: Progress) -> Row:
    """Decodes random logits for one of the large networks."""
    network = load_network(name, image_size=LARGE[name])
    cost = CostModel(SearchSpace.from_model(network, couple_trunk=False), kind)
    return _summary(Row, name, cost, _decode(name, cost, options, progress))


def measure_small(name: str, kind: str, options: argparse.Namespace, progress: Progress) -> SmallRow:
    """Decodes for one of the small networks without trying all shapes, then compares with all shapes."""
    build, divisor = SMALL[name]
    cost = CostModel(SearchSpace.from_graph(Graph.from_model(build()), width_divisor=divisor), kind)
    with mock.patch.object(decode_module, "_EXHAUSTIVE", 0):
        found = _decode(name, cost, options, progress)
    table = all_shapes(cost)
    gaps = np.array([gap_to_the_optimum(cost.space, decoding, table) for decoding in found], np.float64)
    comparable = gaps[~np.isnan(gaps)]
    kept = comparable[np.isfinite(comparable)]
    return _summary(
        SmallRow,
        name,
        cost,
        found,
        shapes=len(table),
        comparable=len(comparable),
        missed=len(comparable) - len(kept),
        optimal=float((kept < ROUNDING).mean()),
        mean_gap=float(kept.mean()),
        largest_gap=float(kept.max()),
    )


def _decode(name: str, cost: CostModel, options: argparse.Namespace, progress: Progress) -> list[Decoding]:
    decodings = decode_randomly(cost, count=options.count, tolerances=(options.tolerance,), seed=options.seed)
    return list(progress.track(decodings, options.count, description=f"{name}, {cost.kind}"))


def _summary(row: type[Row], name: str, cost: CostModel, found: list[Decoding], **more) -> Row:
    below = np.array([decoding.limit - decoding.spent for decoding in found])
    tolerances = np.array([decoding.tolerance for decoding in found])
    return row(
        network=name.removeprefix("keras.applications."),
        kind=cost.kind,
        lowest=cost(decode_module.smallest_shape(cost)) / cost.full,
        decoded=len(found),
        over=int((below < 0).sum()),
        within=float(((below >= 0) & (below <= tolerances)).mean()),
        mean_below=float(below.mean() / cost.full),
        largest_below=float(below.max() / cost.full),
        seconds=float(np.median([decoding.seconds for decoding in found])),
        **more,
    )


def _print(console: Console, large: list[Row], small: list[SmallRow]) -> None:
    columns = ("network", "kind", "lowest", "decoded", "over budget", "within tolerance")
    table = Table(*columns, "mean below", "largest below", "seconds each", title="Budgets")
    for row in large:
        table.add_row(
            *(row.network, row.kind, f"{row.lowest:.3f}", str(row.decoded), str(row.over), f"{row.within:.2%}"),
            *(f"{row.mean_below:.3%}", f"{row.largest_below:.3%}", f"{row.seconds:.3f}"),
        )
    console.print(table)
    columns = ("network", "kind", "shapes", "decoded", "over budget", "comparable", "missed", "optimal")
    table = Table(*columns, "mean gap, nats", "largest gap", title="Against all shapes")
    for row in small:
        table.add_row(
            *(row.network, row.kind, f"{row.shapes:,}", str(row.decoded), str(row.over), str(row.comparable)),
            *(str(row.missed), f"{row.optimal:.2%}", f"{row.mean_gap:.4f}", f"{row.largest_gap:.4f}"),
        )
    console.print(table)


def _names(text: str) -> list[str]:
    return text.split(",")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="shapes to decode for each network and kind")
    parser.add_argument("--kinds", type=_names, default=list(COST_KINDS), help="kinds of cost, comma-separated")
    parser.add_argument("--networks", type=_names, default=list(LARGE), help=f"some of {', '.join(LARGE)}")
    parser.add_argument("--tolerance", type=float, default=0.05, help="share of the unpruned network's cost")
    parser.add_argument("--seed", type=int, default=0, help="random seed of logits and budgets")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
