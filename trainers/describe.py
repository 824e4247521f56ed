"""Shows which parts of a network can be searched, what the network costs, and what a shape costs.

Examples:
    python -m trainers.describe --model=resnet20
    python -m trainers.describe --model=keras.applications.MobileNetV2 --image_size=96 --json
    python -m trainers.describe --model=teacher.keras --shape=runs/digits/search/shape.json
    python -m trainers.describe --model=resnet56 --shape=published/cifar10-resnet56
    python -m trainers.describe --model=resnet20 --dataset=fashion_mnist
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tas_tf.cli.command import make_console, run
from tas_tf.cli.options import is_given, parse
from tas_tf.cost.budget import Budget
from tas_tf.data.sources import load_source
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.tflite import file_size
from tas_tf.description import describe_space, find_deployment
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


def main() -> dict[str, Any]:
    """Describes the network that the flags name; returns the figures."""
    parsed = parse()
    config = parsed.config
    name = require(config.network, "model")
    shape = Shape.load(shape_file(config.shape)) if config.shape else None
    published = published_shape(config.shape)
    num_classes, image_size, channels = _sizes(config, published)
    model = load_network(name, num_classes=num_classes, image_size=image_size, channels=channels)
    space = space_of(Graph.from_model(model), config.space, shape)
    description = replace(
        describe_space(space, name=name, shape=shape),
        deployment=find_deployment(model),
        budgets=_limits(space, config.budgets) if is_given("budget") else None,
        paper_accuracy=published.accuracy if published else None,
    )
    if not parsed.call.json:
        make_console().print(description)
    return description.to_json()


def _limits(space: SearchSpace, budgets: Sequence[Budget]) -> dict[str, dict[str, int]]:
    """The limit of each budget, the full cost and the smallest reachable cost.

    Raises:
        UserError: A budget can't be reached.
    """
    measure = FileSize(space, file_size)
    found = {}
    for budget in budgets:
        cost, limit = prepare(space, budget, measure)
        smallest = real_cost(cost, smallest_shape(cost), measure)
        found[str(budget)] = {"limit": limit, "full": cost.full, "smallest": smallest}
    return found


def _sizes(config: RunConfig, published: PublishedShape | None) -> tuple[int, int, int]:
    """Number of classes, height and channels of the images: from flags, else `dataset`, else the published shape."""
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


if __name__ == "__main__":
    run(main)
