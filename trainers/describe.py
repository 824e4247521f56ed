"""Shows which parts of a network can be searched, what the network costs, and what a shape costs.

Examples:
    python -m trainers.describe --model=resnet20
    python -m trainers.describe --model=keras.applications.MobileNetV2 --image_size=96 --json
    python -m trainers.describe --model=teacher.keras --shape=runs/digits/search/shape.json
    python -m trainers.describe --model=resnet56 --shape=published/cifar10-resnet56
    python -m trainers.describe --model=resnet20 --dataset=fashion_mnist
    python -m trainers.describe --model=resnet20 --budget=latency:0.5 --latency_format=int8
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from tas_tf.cli.command import make_console, make_shared, run
from tas_tf.cli.options import is_given, parse
from tas_tf.cli.wording import translate
from tas_tf.compression.contents import describe_contents
from tas_tf.cost.cost_model import MEASURED, reported
from tas_tf.data.form import Form
from tas_tf.data.own_data import OwnData, Script, needs_own_network
from tas_tf.data.resizing import pair
from tas_tf.data.run_data import RunData
from tas_tf.data.sources import load_source, needs_size
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.file_contents import layers_inside
from tas_tf.deploy.tflite import file_size
from tas_tf.description import describe_space, find_deployment, find_objective
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import fixed_size, with_image_size
from tas_tf.latency.meter import meter_of
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.objective import Objective
from tas_tf.published import PublishedShape, published_shape, shape_file
from tas_tf.runs.config import RunConfig
from tas_tf.runs.networks import form_of, graph_at
from tas_tf.runs.workspace import Workspace, space_of
from tas_tf.searching.run import cost_and_limit
from tas_tf.settings import require
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import real_cost
from tas_tf.zoo.loading import load_network, losses_in_file


def main() -> dict[str, Any]:
    """Describes the network that the flags name; returns the figures."""
    parsed = parse()
    config = parsed.config
    name = require(config.network, "model")
    shape = Shape.load(shape_file(config.shape)) if config.shape else None
    published = published_shape(config.shape)
    console, network = make_console(), config.network
    options = {
        "custom_objects": network.custom_objects,
        "unsafe_load": network.unsafe_load,
        "say": lambda text: console.print(translate(text), highlight=False, soft_wrap=True),
    }
    meant = {"task": network.task, "loss": network.loss}
    script = Script.of(config.data.dataset)
    if config.model_file:
        model = load_network(name, **options)
        meant["loss"] = meant["loss"] or losses_in_file(config.model_file)["loss"]
        if config.data.image_size is None and needs_size(config.data.dataset):
            config = replace(config, data=replace(config.data, image_size=fixed_size(model)))
        graph = graph_at(model, config.data, script) if is_given("dataset") else None
        labelled_for = None if graph is None else find_objective(graph, **meant)
        if script is not None:
            labels, model = (), script.sized(model)
            if labelled_for is not None and is_given("budget"):  # files hold the names of classes
                labels = OwnData.load(script, config.data, form=Form.of(graph), objective=labelled_for).class_names
        else:
            form = None if graph is None else form_of(graph)
            labels, *shape_of_images = _images(config, published, labelled_for, form)
            model = with_image_size(model, _sides(*shape_of_images))
    elif script is not None:
        raise needs_own_network()
    else:
        labels, image_size, channels = _images(config, published)
        model = load_network(name, num_classes=len(labels), image_size=image_size, channels=channels, **options)
        model = with_image_size(model, _sides(image_size, channels))
    space = space_of(Graph.from_model(model), config.space, shape)
    objective = find_objective(space.graph, **meant)
    description = replace(
        describe_space(space, objective, name=None if config.model_file else name, shape=shape),
        deployment=find_deployment(model),
        budgets=_limits(space, labels, config, objective) if is_given("budget") else None,
        paper_accuracy=published.accuracy if published else None,
    )
    if not parsed.call.json:
        console.print(description)
    return description.to_json()


def _sides(image_size: int | tuple[int, int], channels: int) -> tuple[int, int, int]:
    """Height, width and channels of images."""
    return (*pair(image_size), channels)


def _limits(
    space: SearchSpace, labels: Sequence[str], config: RunConfig, objective: Objective | None
) -> dict[str, dict[str, float]]:
    """The limit of each budget, the full cost and the smallest reachable cost. Files include labels and metadata.

    Raises:
        UserError: A budget can't be reached.
    """
    kind = Classification.task if objective is None else objective.task
    # A file has its own number of classes; a single decision has two.
    fits = len(labels) == max(space.graph.num_classes, 2 if kind == Binary.task else 1)
    names = labels if fits else list(map(str, range(space.graph.num_classes)))
    contents = describe_contents(space, Shape.full(space), objective, names)
    kinds = dict.fromkeys(budget.kind for budget in config.budgets)
    inside = config.export.preprocessing_inside and bool(set(kinds) & set(MEASURED))
    task = _task(config) if inside else None

    def layers() -> list[keras.layers.Layer]:
        return [] if task is None else layers_inside(task)

    def measure(student: keras.Model) -> int:
        return file_size(student, preprocessing_layers=layers(), metadata=contents)

    options = {"measure_file": measure, "preprocessing": layers, "say": make_console().print}
    meters = {kind: meter_of(kind, space, config.latency, **options) for kind in kinds}
    found = {}
    for budget in config.budgets:
        meter = meters[budget.kind]
        cost, limit = cost_and_limit(space, budget, meter)
        smallest = real_cost(cost, smallest_shape(cost), meter)
        figures = {"limit": limit, "full": cost.full, "smallest": smallest}
        found[str(budget)] = {name: reported(cost.kind, value) for name, value in figures.items()}
    return found


def _task(config: RunConfig) -> RunData:
    """The data, for the preprocessing that files contain.

    Raises:
        UserError: No data was given.
    """
    if not is_given("dataset"):
        raise UserError("`preprocessing_inside` puts into files what the data needs. Give its `dataset` too.")
    with tempfile.TemporaryDirectory() as empty:  # the folder of a run without a teacher; nothing is written
        return Workspace.open(replace(config, run_dir=empty), make_shared()).task


def _images(
    config: RunConfig,
    published: PublishedShape | None,
    objective: Objective | None = None,
    form: Form | None = None,
) -> tuple[Sequence[str], int | tuple[int, int], int]:
    """Names of classes or values, size and channels of images: from flags, `dataset` or the published shape."""
    data, network = config.data, config.network
    found = (range(published.num_classes), published.image_size, 3) if published else (range(10), 32, 3)
    if is_given("dataset"):
        source = load_source(
            data.dataset,
            objective,
            data_dir=data.data_dir,
            features=data.features,
            label_columns=data.label_columns,
            image_size=data.image_size,
            test_share=data.test_share,
            channels=data.channels,
            skip_broken=needs_size(data.dataset),
            checked=(),
            streamed=True,
            form=form,
        )
        *size, channels = source.image_shape
        found = (source.class_names, tuple(size), channels)
    names, size, channels = found
    if network.num_classes is not None and network.num_classes != len(names):
        names = range(network.num_classes)
    return list(map(str, names)), data.image_size or size, data.channels or channels


if __name__ == "__main__":
    run(main)
