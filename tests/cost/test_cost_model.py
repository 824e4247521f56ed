"""Costs against a count over the layers of the network that is really built."""

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.projections import projections
from tas_tf.cost.terms import Tiles
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.costs import tiled_cost
from tests.networks import BODIES, classify, conv_bn, count_macs, graph_of, make, network
from tests.parts import slow_except


def any_shape(space: SearchSpace, seed: int) -> Shape:
    """Widths and depths that needn't be candidates."""
    rng = np.random.default_rng(seed)
    widths = [unit.step * rng.integers(1, unit.width // unit.step + 1) for unit in space.units]
    return Shape.from_counts(space, widths, [rng.integers(1, stage.blocks + 1) for stage in space.stages])


def assert_costs_are_counts(space: SearchSpace, shapes: list[Shape]) -> keras.Model:
    """Returns the student of the last shape."""
    macs, params = CostModel(space), CostModel(space, "params")
    for shape in shapes:
        student = build_student(space, shape)
        assert macs(shape) == count_macs(student), shape
        assert params(shape) == student.count_params(), shape
    return student


@pytest.fixture(scope="module")
def resnet20() -> SearchSpace:
    return SearchSpace.from_graph(graph_of("resnet20"))


@pytest.mark.parametrize("seed", slow_except(range(50), range(10)))
def test_costs_of_random_resnet20_shapes_are_counts(resnet20, seed):
    shape = Shape.random(resnet20, seed)
    student = assert_costs_are_counts(resnet20, [shape])
    built = [layer for layer in student.layers if layer.name.endswith("_projection")]
    listed = projections(resnet20, shape)
    assert [f"{entry['layer']}_projection" for entry in listed] == [layer.name for layer in built]
    for entry, layer in zip(listed, built, strict=True):
        assert layer.kernel.shape == (1, 1, entry["in"], entry["out"])
        assert entry["macs"] == int(np.prod(layer.output.shape[1:])) * entry["in"]


@pytest.mark.parametrize(
    "name",
    [
        "keras.applications.MobileNetV2",
        pytest.param("keras.applications.ResNet50V2", marks=pytest.mark.slow),
    ],
)
def test_costs_of_random_application_shapes_are_counts(name):
    model, space = network(name), SearchSpace.from_graph(graph_of(name), couple_trunk=False)
    assert CostModel(space).full == count_macs(model)
    assert CostModel(space, "params").full == model.count_params()
    assert_costs_are_counts(space, [Shape.random(space, 0)])


@pytest.mark.parametrize("name", BODIES)
def test_costs_of_small_networks_are_counts(name):
    graph = Graph.from_model(make(name))
    for options in ({}, {"couple_trunk": True, "search_dense": True}):
        space = SearchSpace.from_graph(graph, **options)
        shapes = [Shape.full(space), Shape.random(space, 0), any_shape(space, 1)]
        assert_costs_are_counts(space, shapes)


def test_exact_on_a_batch_equals_one_by_one(resnet20):
    shapes = [Shape.random(resnet20, seed) for seed in range(20)]
    widths = np.array([[shape.widths[unit.name] for unit in resnet20.units] for shape in shapes])
    depths = np.array([[shape.depths[stage.name] for stage in resnet20.stages] for shape in shapes])
    for kind in ("macs", "params"):
        model = CostModel(resnet20, kind)
        assert model.exact(widths, depths).tolist() == [model(shape) for shape in shapes]


#: Found and published by the authors: network, classes, widths along the main path, depths, and what it really costs.
PUBLISHED = [
    (
        *("resnet20", 10),
        [16, 6, 4, 4, 4, 4, 4, 32, 32, 12, 19, 32, 28, 64, 64, 64, 64, 64, 44],
        [3, 3, 3],
        22_444_472,
    ),
    (
        *("resnet56", 10),
        [16, 16, 16, 14, 11, 9, 16, 12, 16, 6, 16, 4, 8, 4, 14, 6, 4, 4, 4]
        + [32, 32, 32, 32, 32, 32, 22, 28, 32, 32, 19, 9, 19, 16, 9, 25, 16, 9]
        + [64, 64, 64, 64, 64, 64, 64, 64, 64, 51, 19, 19, 32, 19, 19, 32, 19, 25],
        [5, 5, 5],
        59_858_430,
    ),
    (
        *("resnet56", 100),
        [16, 16, 9, 14, 16, 14, 16, 8, 16, 8, 14, 4, 4, 4, 8, 4, 6, 4, 4]
        + [32, 32, 32, 28, 32, 32, 32, 22, 32, 32, 32, 9, 25, 19, 25, 12, 9, 9]
        + [64, 64, 64, 64, 64, 64, 64, 64, 64, 51, 19, 19, 19, 19, 25, 38, 19, 19],
        [5, 5, 7],
        61_233_836,
    ),
]


@pytest.mark.parametrize(("name", "classes", "conv_widths", "depths", "macs"), PUBLISHED)
def test_costs_of_published_shapes(name, classes, conv_widths, depths, macs):
    space = SearchSpace.from_graph(graph_of(name, classes))
    main_path = [node.name for node in space.graph if node.kind is Kind.CONV and "shortcut" not in node.name]
    widths = {space.unit_of[conv]: width for conv, width in zip(main_path, conv_widths, strict=True)}
    shape = Shape(name, "", widths, {stage.name: depth for stage, depth in zip(space.stages, depths, strict=True)})
    shape.check(space)
    assert CostModel(space)(shape) == macs


def test_a_layer_kept_as_it_is_counts_when_its_macs_are_known():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2DTranspose(6, 2, strides=2, activation="softmax")(conv_bn(images, 8))
    x = layers.Conv2D(6, 3, groups=2, padding="same", activation="softmax")(conv_bn(x, 6))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="softmax")(x)
    model = keras.Model(images, classify(conv_bn(x, 7)))
    space = SearchSpace.from_graph(Graph.from_model(model))
    assert_costs_are_counts(space, [Shape.full(space), any_shape(space, 0)])
    assert sum("softmax" in reason for reason in space.frozen.values()) == 3


def test_projections_exist_at_every_rank():
    for rank, size in ((1, (16, 3)), (3, (4, 4, 4, 3))):
        conv = getattr(layers, f"Conv{rank}D")
        images = keras.Input(size)
        x = conv(8, 3, padding="same", activation="relu")(images)
        for _ in range(2):
            x = layers.Add()([x, conv(8, 3, padding="same", activation="relu")(x)])
        x = getattr(layers, f"GlobalAveragePooling{rank}D")()(x)
        x = layers.Add()([x, layers.Dense(8)(x)])
        space = SearchSpace.from_graph(Graph.from_model(keras.Model(images, layers.Dense(4)(x))))
        shape = Shape.from_counts(space, range(3, 3 + len(space.units)), [stage.blocks for stage in space.stages])
        assert len(projections(space, shape)) == 3
        assert_costs_are_counts(space, [shape])


def test_an_unknown_kind_is_refused(resnet20):
    with pytest.raises(UserError, match="macs, params"):
        CostModel(resnet20, "seconds")


@pytest.mark.parametrize("tiles", [Tiles(1, 1), Tiles(8, 8), Tiles(16, 64), Tiles(1, 4)], ids=str)
def test_tiles(tiles):
    for channels in range(1, 200):
        size = tiles.smallest
        while size < channels and size < tiles.largest:
            size *= 2
        expected = size if channels <= size else -(-channels // tiles.largest) * tiles.largest
        assert tiles.count(channels) == expected
    assert tiles.count(0) == 0


def test_latency_adds_up_operator_by_operator(resnet20):
    cost = tiled_cost(resnet20)
    for seed in range(10):
        shape = Shape.random(resnet20, seed)
        active, expected = ActiveChannels(resnet20, shape), 0
        for term in cost.terms:
            stage, block = resnet20.block_of.get(term.layer, ("", 1))
            if stage and shape.depths[stage] < block:
                continue
            if term.differ and all(active.width(one) == active.width(other) for one, other in term.differ):
                continue
            reads, makes = (
                int(tiles.count(sum(map(active.width, side)))) if side else 1
                for side, tiles in ((term.reads, term.read_tiles), (term.makes, term.make_tiles))
            )
            expected += term.factor * reads * makes
        assert cost(shape) == expected


def test_latency_needs_measured_terms(resnet20):
    with pytest.raises(UserError, match="`terms`"):
        CostModel(resnet20, "latency")
    with pytest.raises(UserError, match="`terms`"):
        CostModel(resnet20, "macs", terms=[])
