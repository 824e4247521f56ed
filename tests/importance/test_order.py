"""Channels in order of importance: which come first, and that the network computes the same."""

import keras
import numpy as np
import pytest

from tas_tf.importance.criteria import score_channels
from tas_tf.importance.order import channel_order, reorder
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import inherited
from tas_tf.zoo.loading import load_network
from tests.channel_networks import make_network
from tests.networks import make, randomize


def test_a_lone_layer_begins_with_its_highest_scores(network, space):
    scores = score_channels("l1", network, space)["block1_conv1"]
    np.testing.assert_array_equal(channel_order("l1", network, space)["block1_conv1"], np.argsort(-scores))


def test_layers_that_are_added_up_share_an_order(network, space):
    order, scores = channel_order("fpgm", network, space), score_channels("fpgm", network, space)
    trunk = ("stem", "block1_conv2", "block2_conv2")
    expected = np.argsort(-np.mean([scores[name] / scores[name].mean() for name in trunk], axis=0))
    for name in trunk:
        np.testing.assert_array_equal(order[name], expected)


def test_a_layer_without_a_scale_follows_those_it_meets():
    network = randomize(load_network("resnet14", image_size=8))
    space = SearchSpace.from_model(network)
    order, scores = channel_order("bn_scale", network, space), score_channels("bn_scale", network, space)
    assert "stage3_block1_shortcut" in space.unit["stage3_block1_conv2"].members
    assert "stage3_block1_shortcut" not in scores
    trunk = [scores[f"stage3_block{number}_conv2"] for number in (1, 2)]
    expected = np.argsort(-np.mean([one / one.mean() for one in trunk], axis=0))
    np.testing.assert_array_equal(order["stage3_block1_conv2"], expected)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet14", 8, {}),
        ("resnet14", 8, {"couple_trunk": True}),
        pytest.param("keras.applications.MobileNetV3Small", 32, {}, marks=pytest.mark.slow),
        pytest.param("keras.applications.DenseNet121", 32, {}, marks=pytest.mark.slow),
    ],
)
def test_a_sorted_network_computes_the_same(name, size, options):
    network = randomize(load_network(name, image_size=size))
    space = SearchSpace.from_model(network, **options)
    order = channel_order("l1", network, space)
    assert any((np.diff(one) < 0).any() for one in order.values())
    ranked = reorder(network, space, order)
    assert SearchSpace.from_model(ranked, **options).graph.digest == space.graph.digest
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = np.array(network(images, training=False))
    np.testing.assert_allclose(ranked(images, training=False), expected, atol=1e-4 * np.abs(expected).max())
    scores = score_channels("l1", ranked, space)
    alone = [names for names in space.units if len(names.members) == 1]
    assert alone
    first = channel_order("l1", ranked, space)
    for unit in space.units:
        np.testing.assert_array_equal(first[unit.name], np.arange(unit.width), err_msg=str(scores[unit.name]))


@pytest.mark.parametrize(
    "name",
    ["shared MLP", "siamese branches", "shortcut with zeros on both sides", "halves", "mean of all", "several outputs"],
)
def test_channels_can_be_sorted_whatever_is_done_to_them(name):
    network = randomize(make_network(name))
    space = SearchSpace.from_model(network)
    order = channel_order("l1", network, space)
    assert any((np.diff(one) < 0).any() for one in order.values())
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    expected = np.array(network(images, training=False))
    sorted_network = reorder(network, space, order)
    np.testing.assert_allclose(sorted_network(images, training=False), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_student_computes_what_the_network_does_with_zeros(network, space, seed):
    """Silencing all channels that aren't kept in the whole network is another way to drop them."""
    shape = Shape.random(space, seed)
    shape = Shape(shape.network, shape.graph_digest, shape.widths, Shape.full(space).depths)
    order = channel_order("l1", network, space)
    student = inherited(reorder(network, space, order), space, shape)
    silenced = keras.models.clone_model(network)
    silenced.set_weights(network.get_weights())
    kept = {name: ranking[: shape.widths[name]] for name, ranking in order.items()}
    for name in kept:
        norm = silenced.get_layer(f"{name}_bn")
        mask = np.isin(np.arange(norm.gamma.shape[0]), kept[name])
        norm.gamma.assign(norm.gamma * mask)
        norm.beta.assign(norm.beta * mask)
    images = np.random.default_rng(seed).normal(size=(4, 8, 8, 1)).astype(np.float32)

    def forward(images):
        # What an identity carries past a narrower branch is cut.
        x = silenced.get_layer("stem_relu")(silenced.get_layer("stem_bn")(silenced.get_layer("stem")(images)))
        for block in ("block1", "block2"):
            y = silenced.get_layer(f"{block}_conv1_bn")(silenced.get_layer(f"{block}_conv1")(x))
            y = silenced.get_layer(f"{block}_conv2_bn")(silenced.get_layer(f"{block}_conv2")(keras.ops.relu(y)))
            mask = np.isin(np.arange(8), kept[f"{block}_conv2"]).astype(np.float32)
            x = keras.ops.relu((x + y) * mask)
        return silenced.get_layer("classifier")(silenced.get_layer("pool")(x))

    np.testing.assert_allclose(student(images), forward(images), atol=1e-5)
    plain = inherited(network, space, shape)
    assert np.abs(np.array(plain(images)) - np.array(student(images))).max() > 1e-3


@pytest.mark.parametrize("name", ["u_net", "grouped", "multiplied"])
def test_sorting_moves_whole_groups_and_the_network_computes_the_same(name):
    network = randomize(make(name))
    space = SearchSpace.from_model(network)
    order = channel_order("l1", network, space)
    assert any((np.diff(one) < 0).any() for one in order.values())
    for unit in space.units:
        groups = order[unit.name].reshape(-1, unit.step)
        np.testing.assert_array_equal(groups, groups[:, :1] + np.arange(unit.step))
        assert (groups[:, 0] % unit.step == 0).all()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = np.array(network(images, training=False))
    ranked = reorder(network, space, order)(images, training=False)
    np.testing.assert_allclose(ranked, expected, atol=1e-4 * np.abs(expected).max())


def test_groups_are_ranked_by_their_mean():
    """A group with the best channel of all comes last if its other channel is the worst."""
    images = keras.Input((8, 8, 3))
    grouped = keras.layers.Conv2D(6, 3, groups=3)(keras.layers.Conv2D(6, 3, name="a")(images))
    network = keras.Model(images, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(grouped)))
    scores = np.array([9.0, 0.0, 5.0, 5.0, 6.0, 6.0])
    network.get_layer("a").kernel.assign(np.broadcast_to(scores / 27, (3, 3, 3, 6)))
    order = channel_order("l1", network, SearchSpace.from_model(network))
    assert order["a"].tolist() == [4, 5, 2, 3, 0, 1]
