"""Shows what of a network can be searched, what it costs, and what a shape would cost.

Examples:
    python -m trainers.describe --model=resnet20
    python -m trainers.describe --model=keras.applications.MobileNetV2 --image_size=96 --json
    python -m trainers.describe --model=teacher.keras --shape=runs/digits/search/shape.json
    python -m trainers.describe --model=resnet56 --shape=published/cifar10-resnet56
    python -m trainers.describe --model=resnet20 --dataset=fashion_mnist
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tas_tf.cli.command import make_console, run
from tas_tf.cli.options import is_given, parse
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.projections import projected_share, projections
from tas_tf.data.sources import load_source
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.tflite import file_size
from tas_tf.graph.graph import Graph
from tas_tf.published import PublishedShape, published_shape, shape_file
from tas_tf.runs.config import RunConfig
from tas_tf.runs.workspace import space_of
from tas_tf.searching.run import prepare
from tas_tf.settings import require
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize, real_cost
from tas_tf.zoo.loading import load_network

COMMAND = "describe"


def main() -> None:
    """Describes the network that the flags name."""
    parsed = parse()
    config = parsed.config
    name = require(config.network, "model")
    shape = Shape.load(shape_file(config.shape)) if config.shape else None
    published = published_shape(config.shape)
    num_classes, image_size, channels = _sizes(config, published)
    model = load_network(name, num_classes=num_classes, image_size=image_size, channels=channels)
    space = space_of(Graph.from_model(model), config.space, shape)
    description = describe(name, space, shape)
    if is_given("budget"):
        description["budgets"] = _limits(space, config.budgets)
    if published and published.accuracy:
        description["paper_accuracy"] = published.accuracy
    if parsed.call.json:
        print(json.dumps(description, indent=2))
    else:
        show(description, space, make_console())


def _limits(space: SearchSpace, budgets: Sequence[Budget]) -> dict[str, dict[str, int]]:
    """What the budgets given come to, of how much, and what is the least that can be reached.

    Raises:
        UserError: One can't be reached.
    """
    measure = FileSize(space, file_size)
    found = {}
    for budget in budgets:
        cost, limit = prepare(space, budget, measure)
        smallest = real_cost(cost, smallest_shape(cost), measure)
        found[str(budget)] = {"limit": limit, "full": cost.full, "smallest": smallest}
    return found


def _sizes(config: RunConfig, published: PublishedShape | None) -> tuple[int, int, int]:
    """Classes, side and channels of the images: as given, else the data's where data is named, else the shape's."""
    data, network = config.data, config.network
    found = (published.num_classes, published.image_size, 3) if published else (10, 32, 3)
    if is_given("dataset"):
        source = load_source(
            data.dataset, data_dir=data.data_dir, image_size=data.image_size, test_share=data.test_share
        )
        height, _, channels = source.image_shape
        found = (source.num_classes, height, channels)
    given = (network.num_classes, data.image_size, network.channels)
    return tuple(one or other for one, other in zip(given, found, strict=True))


def describe(name: str, space: SearchSpace, shape: Shape | None = None) -> dict[str, Any]:
    """Collects what there is to know before a search.

    Args:
        name: What the user calls the network.
        space: What can be searched.
        shape: Adds the shape's own figures.

    Returns:
        `model`, `macs`, `params`, `min_macs_ratio`, `min_params_ratio`, `projected_share`, `units`, `stages`, `frozen`,
        and with a shape `shape_macs`, `shape_params`, `projections`; fit for JSON.

    Raises:
        UserError: The shape belongs to another network.
    """
    macs, params = CostModel(space), CostModel(space, "params")
    description = {
        "model": name,
        "macs": macs.full,
        "params": params.full,
        "min_macs_ratio": macs(smallest_shape(macs)) / macs.full,
        "min_params_ratio": params(smallest_shape(params)) / params.full,
        "projected_share": projected_share(space),
        "units": [
            {
                "name": unit.name,
                "width": unit.width,
                "candidates": list(unit.candidates),
                "coupled_with": list(unit.coupled_with),
            }
            for unit in space.units
        ],
        "stages": [
            {"name": stage.name, "blocks": stage.blocks, "candidates": list(stage.candidates)} for stage in space.stages
        ],
        "frozen": [{"layer": layer, "reason": reason} for layer, reason in space.frozen.items()],
    }
    if shape is not None:
        shape.check(space)
        description["shape_macs"] = macs(shape)
        description["shape_params"] = params(shape)
        description["projections"] = projections(space, shape)
    return description


def show(description: dict[str, Any], space: SearchSpace, console: Console) -> None:
    """Prints a description of a space as tables."""
    images = "x".join(map(str, space.graph.input.shape[1:]))
    console.print(
        f"[bold]{description['model']}[/bold], images of {images}, {space.graph.num_classes} classes", highlight=False
    )
    console.print(f"{description['macs']:,} MACs, {description['params']:,} parameters", highlight=False)
    # Rounded up: a budget of so much has to do.
    macs, params = (math.ceil(1000 * description[f"min_{kind}_ratio"]) / 1000 for kind in ("macs", "params"))
    console.print(f"smallest reachable: {macs:.3f} of its MACs, {params:.3f} of its parameters", highlight=False)
    for budget, numbers in description.get("budgets", {}).items():
        limit, full, smallest = numbers.values()
        kind = budget.partition(":")[0]
        console.print(
            f"budget {budget}: {limit:,} of {full:,} {kind} ({limit / full:.3f}), smallest {smallest:,}",
            highlight=False,
            soft_wrap=True,
        )
    projected = description["projected_share"]
    console.print(
        f"projections: {projected:.0%} of the MACs of random shapes, on average"
        + ("; blocks of a stage end in one width, see --couple_trunk" if space.is_coupled else ""),
        highlight=False,
    )
    units = [
        [unit["name"], unit["width"], _numbers(unit["candidates"]), ", ".join(unit["coupled_with"])]
        for unit in description["units"]
    ]
    stages = [[stage["name"], stage["blocks"], _numbers(stage["candidates"])] for stage in description["stages"]]
    frozen = [[entry["layer"], entry["reason"]] for entry in description["frozen"]]
    _print_table(console, "Width units", ["name", "width", "candidates", "coupled with"], units)
    _print_table(console, "Stages", ["name", "blocks", "candidates"], stages)
    _print_table(console, "Frozen", ["layer", "reason"], frozen)
    if "shape_macs" in description:
        _show_shape(description, console)
    if "paper_accuracy" in description:
        console.print(
            f"top-1 in the paper, with distillation: {description['paper_accuracy']:.2%} (quoted second hand)",
            highlight=False,
        )


def _show_shape(description: dict[str, Any], console: Console) -> None:
    macs, added = description["shape_macs"], description["projections"]
    share = sum(entry["macs"] for entry in added) / macs
    rows = [[entry["layer"], entry["in"], entry["out"], f"{entry['macs']:,}"] for entry in added]
    _print_table(console, "Projections", ["layer", "in", "out", "MACs"], rows)
    console.print(
        f"shape: {macs:,} MACs ({macs / description['macs']:.3f}), {description['shape_params']:,} parameters; "
        f"its projections, {len(added)} of them, take {share:.1%} of that",
        highlight=False,
    )


def _numbers(values: list[int]) -> str:
    return " ".join(map(str, values))


def _print_table(console: Console, title: str, columns: list[str], rows: list[list]) -> None:
    if not rows:
        console.print(f"{title}: none", highlight=False)
        return
    table = Table(title=title, title_justify="left")
    for column, value in zip(columns, rows[0], strict=True):
        numeric = isinstance(value, int) or column == "MACs"
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


if __name__ == "__main__":
    run(main)
