"""When the blocks of a stage share one width."""

import keras
import pytest

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.space import MOST_PROJECTED, SearchSpace
from tas_tf.zoo.loading import load_network
from tas_tf.zoo.resnet_cifar import resnet_cifar


@pytest.fixture(scope="module")
def bottlenecks() -> Graph:
    return Graph.from_model(resnet_cifar(29, bottleneck=True))


@pytest.fixture(scope="module")
def basic() -> Graph:
    return Graph.from_model(resnet_cifar(20))


def test_bottlenecks_are_coupled_by_default_and_basic_blocks_are_not(bottlenecks, basic):
    assert SearchSpace.from_graph(bottlenecks).is_coupled
    assert not SearchSpace.from_graph(basic).is_coupled
    assert SearchSpace.from_graph(basic, couple_trunk=True).is_coupled
    assert not SearchSpace.from_graph(bottlenecks, couple_trunk=False).is_coupled


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "coupled"),
    [
        ("resnet110", 32, False),
        ("resnet50", 32, True),
        ("keras.applications.MobileNetV2", 32, False),
        ("keras.applications.Xception", 71, False),
    ],
)
def test_the_default_leaves_a_margin_on_both_sides(name, size, coupled):
    model = load_network(name, image_size=size)
    assert SearchSpace.from_model(model).is_coupled == coupled
    share = SearchSpace.from_model(model, couple_trunk=False).largest_projected_share
    assert share > 1.4 * MOST_PROJECTED if coupled else share < 0.7 * MOST_PROJECTED


def test_the_share_counts_every_projection_at_full_width(basic):
    """Basic blocks of width c: two 3x3 convolutions of c x c; the first block of a later stage reads c / 2."""
    share = SearchSpace.from_graph(basic).largest_projected_share
    own = 32 * 32 * 9 * 3 * 16 + 10 * 64 + 10
    own += sum(size * size * 9 * width * width * 6 for size, width in ((32, 16), (16, 32), (8, 64)))
    # The first convolutions of stages 2 and 3 read half as many channels, and 1x1 shortcuts are beside them.
    own += sum(size * size * width * width // 2 * (1 - 9) for size, width in ((16, 32), (8, 64)))
    # Identities of a stage: 3, of which the first one of stages 2 and 3 is a convolution coupled with the branch.
    added = sum(size * size * width * width * count for size, width, count in ((32, 16, 3), (16, 32, 2), (8, 64, 2)))
    assert share == pytest.approx(added / (added + own), rel=0.02)


def test_fixed_widths_need_no_projections(bottlenecks):
    space = SearchSpace.from_graph(bottlenecks, axes="depth")
    assert space.largest_projected_share == 0
    assert not space.is_coupled


def test_the_units_of_a_shape_say_how_it_was_found(bottlenecks):
    for couple_trunk in (False, True):
        units = SearchSpace.from_graph(bottlenecks, couple_trunk=couple_trunk).unit
        assert SearchSpace.from_graph(bottlenecks, units=units).is_coupled == couple_trunk
        assert (
            SearchSpace.from_graph(bottlenecks, units=units, couple_trunk=not couple_trunk).is_coupled != couple_trunk
        )


def test_other_options_reach_the_space(bottlenecks):
    assert all(unit.candidates[0] >= 8 for unit in SearchSpace.from_graph(bottlenecks, width_divisor=8).units)
    assert not SearchSpace.from_graph(bottlenecks, axes="width").searched_stages
    with pytest.raises(UserError, match="axes"):
        SearchSpace.from_graph(bottlenecks, axes="height")


def test_without_stages_there_is_nothing_to_couple():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3)(images)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    space = SearchSpace.from_model(keras.Model(images, x))
    assert (space.stages, space.is_coupled) == ((), False)
