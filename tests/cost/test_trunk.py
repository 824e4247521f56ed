"""When the blocks of a stage share one width."""

import keras
import pytest

from tas_tf.cost.cost_model import CostModel, projections
from tas_tf.cost.trunk import MOST_PROJECTED, make_space, projected_share
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.resnet_cifar import resnet_cifar


@pytest.fixture(scope="module")
def bottlenecks() -> Graph:
    return Graph.from_model(resnet_cifar(29, bottleneck=True))


@pytest.fixture(scope="module")
def basic() -> Graph:
    return Graph.from_model(resnet_cifar(20))


def test_bottlenecks_are_coupled_by_default_and_basic_blocks_are_not(bottlenecks, basic):
    assert make_space(bottlenecks).is_coupled
    assert not make_space(basic).is_coupled
    assert make_space(basic, couple_trunk=True).is_coupled
    assert not make_space(bottlenecks, couple_trunk=False).is_coupled


def test_a_shape_says_how_it_was_found(bottlenecks):
    for couple_trunk in (False, True):
        shape = Shape.full(make_space(bottlenecks, couple_trunk=couple_trunk))
        assert make_space(bottlenecks, shape=shape).is_coupled == couple_trunk


def test_other_options_reach_the_space(bottlenecks):
    assert all(unit.width % 8 or unit.candidates[0] >= 8 for unit in make_space(bottlenecks, width_divisor=8).units)
    assert not make_space(bottlenecks, axes="width").searched_stages
    with pytest.raises(UserError, match="axes"):
        make_space(bottlenecks, axes="height")


def test_the_share_is_that_of_the_projections_built(basic, bottlenecks):
    """By the list of projections, on shapes of other seeds."""
    for graph in (basic, bottlenecks):
        space = SearchSpace.from_graph(graph)
        cost = CostModel(space)
        shares = []
        for seed in range(200):
            shape = Shape.random(space, seed)
            shares.append(sum(entry["macs"] for entry in projections(space, shape)) / cost(shape))
        assert projected_share(space) == pytest.approx(sum(shares) / len(shares), rel=0.15)
    assert projected_share(SearchSpace.from_graph(bottlenecks)) > 2 * MOST_PROJECTED
    assert projected_share(SearchSpace.from_graph(bottlenecks, couple_trunk=True)) < MOST_PROJECTED / 2


def test_without_stages_there_is_nothing_to_couple():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3)(images)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    assert make_space(Graph.from_model(keras.Model(images, x))).stages == ()
