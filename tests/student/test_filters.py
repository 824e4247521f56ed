"""Which filters are kept: the criteria by hand, and that what is kept stays in place."""

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.filters import CRITERIA, kept_filters
from tas_tf.training.network import inherited
from tests.digits import tiny_network
from tests.networks import randomize


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return randomize(tiny_network())


@pytest.fixture(scope="module")
def space(network) -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(network))


def shape_of(space: SearchSpace, **widths: int) -> Shape:
    full = Shape.full(space)
    return Shape(full.network, full.graph_digest, {**full.widths, **widths}, full.depths)


def scores(criterion: str, kernel: np.ndarray) -> np.ndarray:
    """Filter by filter, as the papers have it."""
    filters = [kernel[..., place].ravel() for place in range(kernel.shape[-1])]
    if criterion == "l1":
        return np.array([np.abs(one).sum() for one in filters])
    return np.array([sum(np.linalg.norm(one - other) for other in filters) for one in filters])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_lone_layer_keeps_its_highest_scores(network, space, criterion):
    kept = kept_filters(criterion, network, space, shape_of(space, block1_conv1=3))
    by_hand = scores(criterion, network.get_layer("block1_conv1").get_weights()[0])
    np.testing.assert_array_equal(kept["block1_conv1"], sorted(np.argsort(-by_hand)[:3]))
    np.testing.assert_array_equal(kept["block2_conv1"], np.arange(7))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_layers_that_are_added_up_agree(network, space, criterion):
    kept = kept_filters(criterion, network, space, shape_of(space, stem=5, block1_conv2=5, block2_conv2=3))
    each = [scores(criterion, network.get_layer(name).get_weights()[0]) for name in ("stem", "block1_conv2")]
    each.append(scores(criterion, network.get_layer("block2_conv2").get_weights()[0]))
    order = np.argsort(-np.mean([one / one.mean() for one in each], axis=0))
    np.testing.assert_array_equal(kept["stem"], sorted(order[:5]))
    np.testing.assert_array_equal(kept["block1_conv2"], kept["stem"])
    np.testing.assert_array_equal(kept["block2_conv2"], sorted(order[:3]))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("seed", range(3))
def test_a_student_without_the_others_computes_what_the_teacher_does_with_zeros(network, space, criterion, seed):
    """The teacher, all that isn't kept silenced, is another way to drop it."""
    shape = Shape.random(space, seed)
    shape = Shape(shape.network, shape.graph_digest, shape.widths, Shape.full(space).depths)
    filters = kept_filters(criterion, network, space, shape)
    student = inherited(network, space, shape, filters=filters)
    silenced = keras.models.clone_model(network)
    silenced.set_weights(network.get_weights())
    for name, kept in filters.items():
        norm = silenced.get_layer(f"{name}_bn")
        mask = np.isin(np.arange(norm.gamma.shape[0]), kept)
        norm.gamma.assign(norm.gamma * mask)
        norm.beta.assign(norm.beta * mask)
    images = np.random.default_rng(seed).normal(size=(4, 8, 8, 1)).astype(np.float32)

    def forward(images):
        # What an identity carries past a narrower branch is cut.
        x = silenced.get_layer("stem_relu")(silenced.get_layer("stem_bn")(silenced.get_layer("stem")(images)))
        for block in ("block1", "block2"):
            y = silenced.get_layer(f"{block}_conv1_bn")(silenced.get_layer(f"{block}_conv1")(x))
            y = silenced.get_layer(f"{block}_conv2_bn")(silenced.get_layer(f"{block}_conv2")(keras.ops.relu(y)))
            mask = np.isin(np.arange(8), filters[f"{block}_conv2"]).astype(np.float32)
            x = keras.ops.relu((x + y) * mask)
        return silenced.get_layer("classifier")(silenced.get_layer("pool")(x))

    np.testing.assert_allclose(student(images), forward(images), atol=1e-5)
    plain = inherited(network, space, shape)
    assert np.abs(np.array(plain(images)) - np.array(student(images))).max() > 1e-3


def test_layers_of_other_kinds_have_filters_too():
    images = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, padding="same", name="separable")(images)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, groups=1, use_bias=True, name="point")(x))
    network = keras.Model(images, layers.Dense(3)(x))
    space = SearchSpace.from_graph(Graph.from_model(network))
    shape = Shape.smallest(space)
    filters = kept_filters("l1", network, space, shape)
    pointwise = network.get_layer("separable").get_weights()[1]
    width = shape.widths["separable"]
    np.testing.assert_array_equal(filters["separable"], sorted(np.argsort(-scores("l1", pointwise))[:width]))
    student = inherited(network, space, shape, filters=filters)
    assert student.count_params() == CostModel(space, "params")(shape)


def test_an_unknown_criterion(network, space):
    with pytest.raises(UserError, match="`criterion` must be one of l1, fpgm"):
        kept_filters("l2", network, space, Shape.full(space))
