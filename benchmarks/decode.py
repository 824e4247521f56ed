"""How near to its budget a decoded shape comes, and how near to the most probable shape that the budget allows.

    python -m benchmarks.decode [--count=500] [--kinds=macs,params,bytes] [--seed=0] [--json]

Random logits, from hardly decided to almost one-hot, are decoded at budgets drawn from the smallest reachable cost to
the whole, and the costs held against the budgets: none may be above. In small networks the shapes found are held
against the best of all shapes too; there the decoder, which would otherwise try all shapes of so small a network
itself, goes the way that it goes in large ones. Exits with 1 if anything was above its budget.
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
from benchmarks.networks import make, residual_network
from tas_tf.cost.cost_model import COST_KINDS, CostModel
from tas_tf.decode import decode as decode_module
from tas_tf.graph.graph import Graph
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network

#: Name and image size.
LARGE = {"resnet56": 32, "keras.applications.MobileNetV2": 96, "keras.applications.EfficientNetB0": 96}
#: Networks, with the divisor of widths that leaves few enough shapes to try them all.
SMALL: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "two stages": (residual_network, 4),
    "residual": (lambda: make("residual"), 5),
    "preactivation": (lambda: make("preactivation"), 3),
    "dense": (lambda: make("concat"), 1),
    "gate": (lambda: make("gate_of_convs"), 1),
}
#: Losses of probability that rounding makes, in nats.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Row:
    """What decoding one network many times gave.

    Attributes:
        network: Its name.
        kind: What counted.
        lowest: Smallest reachable share of the whole.
        decoded: How many shapes.
        over: Of them above the budget.
        within: Share of them at most the tolerance below it.
        mean_below: Mean distance below the budget, as a share of the whole.
        largest_below: Largest distance.
        seconds: Median CPU time of one.
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
    """As `Row`, for a network whose shapes were all tried out.

    Attributes:
        shapes: How many there are.
        comparable: Budgets with a shape within the tolerance.
        missed: Of these, those where the decoded shape was not.
        optimal: Share of the others that are the most probable shape there.
        mean_gap: Mean loss of log-probability against it, in nats.
        largest_gap: Largest loss.
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
    """Decodes for one of the large networks."""
    network = load_network(name, image_size=LARGE[name])
    cost = CostModel(SearchSpace.from_model(network, couple_trunk=False), kind)
    return _summary(Row, name, cost, _decode(name, cost, options, progress))


def measure_small(name: str, kind: str, options: argparse.Namespace, progress: Progress) -> SmallRow:
    """Decodes for one of the small networks without trying all shapes, then tries them all."""
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
    parser.add_argument("--kinds", type=_names, default=list(COST_KINDS), help="costs, with commas between")
    parser.add_argument("--networks", type=_names, default=list(LARGE), help=f"of {', '.join(LARGE)}")
    parser.add_argument("--tolerance", type=float, default=0.05, help="share of the whole")
    parser.add_argument("--seed", type=int, default=0, help="of logits and budgets")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
