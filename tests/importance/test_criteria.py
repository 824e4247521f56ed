"""Scores of channels, compared with the papers' formulas layer by layer and with gates written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.errors import UserError
from tas_tf.importance.criteria import score_channels
from tas_tf.importance.order import channel_order
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import logits_of


@pytest.fixture(scope="module")
def batches() -> list[tuple[tf.Tensor, tf.Tensor]]:
    rng = np.random.default_rng(0)
    return [(tf.constant(rng.normal(size=(3, 8, 8, 1)), tf.float32), tf.constant([1, 7, 4])) for _ in range(2)]


def rows(kernel: np.ndarray) -> list[np.ndarray]:
    return [kernel[..., place].ravel() for place in range(kernel.shape[-1])]


def test_l1_norms_and_distances(network, space):
    filters = {name: rows(network.get_layer(name).get_weights()[0]) for name in space.unit_of}
    norms, distances = score_channels("l1", network, space), score_channels("fpgm", network, space)
    for name, layer in filters.items():
        np.testing.assert_allclose(norms[name], [np.abs(one).sum() for one in layer], rtol=1e-5)
        expected = [sum(np.linalg.norm(one - other) for other in layer) for one in layer]
        np.testing.assert_allclose(distances[name], expected, rtol=1e-5)


def test_scales(network, space):
    found = score_channels("bn_scale", network, space)
    for name in space.unit_of:
        np.testing.assert_allclose(found[name], np.abs(network.get_layer(f"{name}_bn").gamma), rtol=1e-6)


@pytest.fixture(scope="module")
def logits(network, space) -> keras.Model:
    return logits_of(network, space)


def gate_gradients(network: keras.Model, name: str, image: tf.Tensor, target) -> np.ndarray:
    """The gradient with respect to a gate behind a normalisation acts on its scale and offset alike."""
    norm = network.get_layer(f"{name}_bn")
    with tf.GradientTape() as tape:
        value = target(network(image[None], training=False)[0])
    scale, offset = tape.gradient(value, [norm.gamma.value, norm.beta.value])
    return np.array(scale * norm.gamma + offset * norm.beta)


def test_taylor_is_the_reaction_of_the_loss(network, logits, space, batches):
    found = score_channels("taylor", network, space, batches)
    for name in ("stem", "block2_conv2"):
        squares = [
            gate_gradients(logits, name, image, lambda values, label=label: tf.nn.log_softmax(values)[label]) ** 2
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]
        np.testing.assert_allclose(found[name], np.sqrt(np.mean(squares, 0)), rtol=1e-3, atol=1e-6)


def test_lfh_estimates_the_reactions_of_all_logits(network, logits, space, batches):
    """Random directions give the sum of squares over the logits in expectation; many batches come near it."""
    found = score_channels("lfh", network, space, 60 * batches)
    for name in ("stem", "block1_conv1"):
        squares = [
            gate_gradients(logits, name, image, lambda values, place=place: values[place]) ** 2
            for images, _ in batches
            for image in images
            for place in range(10)
        ]
        np.testing.assert_allclose(found[name], np.sqrt(10 * np.mean(squares, 0)), rtol=0.15)


def test_layers_of_other_kinds_have_scores_too():
    images = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, padding="same", name="separable")(images)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, use_bias=True, activation="relu", name="point")(x))
    network = keras.Model(images, layers.Dense(3)(x))
    space = SearchSpace.from_model(network)
    pointwise = network.get_layer("separable").get_weights()[1]
    np.testing.assert_allclose(
        score_channels("l1", network, space)["separable"], [np.abs(one).sum() for one in rows(pointwise)], rtol=1e-5
    )
    batch = (tf.ones((2, 8, 8, 3)), tf.constant([0, 2]))
    assert {name: len(one) for name, one in score_channels("lfh", network, space, [batch]).items()} == {
        "separable": 6,
        "point": 4,
    }
    assert score_channels("bn_scale", network, space) == {}
    with pytest.raises(UserError, match="none behind separable"):
        channel_order("bn_scale", network, space)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [("l2", "`importance` must be one of l1, fpgm"), ("taylor", "`importance`=taylor needs images")],
)
def test_mistakes(network, space, criterion, message):
    with pytest.raises(UserError, match=message):
        score_channels(criterion, network, space)


def test_filters_of_a_transposed_convolution_are_its_second_last_axis():
    images = keras.Input((4, 4, 3))
    x = layers.Conv2DTranspose(6, 2, name="up")(images)
    network = keras.Model(images, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    kernel = network.get_layer("up").kernel.numpy()
    scores = score_channels("l1", network, SearchSpace.from_model(network))
    np.testing.assert_allclose(scores["up"], np.abs(kernel).sum((0, 1, 3)), rtol=1e-6)
