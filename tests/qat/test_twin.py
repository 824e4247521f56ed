"""The same network in Keras 2: equal where it can be built, refused by name where it can't."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers
from keras.src.applications.convnext import LayerScale

from tas_tf.errors import UserError
from tas_tf.qat import twin
from tas_tf.qat.twin import make_twin
from tas_tf.zoo.loading import in_precision
from tests.networks import classify, make, randomize


def build(body) -> keras.Model:
    images = keras.Input((8, 8, 3))
    return randomize(keras.Model(images, body(images)))


def around(*middle: layers.Layer) -> keras.Model:
    """Layers in a chain with a convolution on either side, since a network must have something to search."""
    images = x = keras.Input((8, 8, 3))
    for layer in (layers.Conv2D(6, 1, use_bias=False, name="first"), *middle, layers.Conv2D(5, 1, name="last")):
        x = layer(x)
    return randomize(keras.Model(images, classify(x)))


def images_for(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


CHAINS = {
    "leaky_relu": [layers.LeakyReLU(negative_slope=0.15)],
    "relu": [layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)],
    "depthwise": [layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, activation="relu")],
    "separable": [layers.SeparableConv2D(7, 3, padding="same", dilation_rate=2, activation="tanh", name="separable")],
    "transposed": [layers.Conv2DTranspose(7, 3, strides=2, padding="same", output_padding=1)],
    "grouped": [layers.Conv2D(8, 3, groups=2, dilation_rate=2)],
    "padding": [layers.ZeroPadding2D(((0, 1), (2, 0))), layers.Conv2D(7, 3, strides=2), layers.Cropping2D(1)],
    "pooling": [layers.MaxPooling2D(3, 1, padding="same"), layers.AveragePooling2D(3, 2, padding="same")],
    "activations": [
        layers.Activation("gelu"),
        layers.Conv2D(7, 3, activation="silu"),
        layers.PReLU(shared_axes=[1, 2]),
    ],
    "hard": [layers.Conv2D(7, 3, activation="hard_silu"), layers.Activation("hard_sigmoid")],
    "statistics": [layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], variance=[1.0, 2.0, 3.0, 4.0, 0.0, 6.0])],
    "normalisation": [layers.LayerNormalization(epsilon=1e-2), layers.BatchNormalization(epsilon=0.1, center=False)],
    "regularised": [layers.Conv2D(7, 3, kernel_regularizer="l2", kernel_constraint="non_neg"), layers.Dropout(0.5)],
    "rescaling": [layers.Rescaling(0.5, 0.1), layers.UpSampling2D(2, interpolation="bilinear")],
    "nested": [keras.Sequential([layers.Conv2D(7, 3, name="first"), layers.BatchNormalization()])],
}


@pytest.mark.parametrize("name", CHAINS)
def test_layers_compute_what_they_do_in_keras_3(name):
    model = around(*CHAINS[name])
    copied = make_twin(model)
    assert isinstance(copied, tf_keras.Model)
    images = images_for(model)
    np.testing.assert_allclose(copied(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gate_of_dense", "concat", "nested", "flatten"])
def test_whole_networks(name):
    model = randomize(make(name))
    before = model.get_weights()
    images = images_for(model)
    np.testing.assert_allclose(make_twin(model)(images), model(images), rtol=1e-4, atol=1e-5)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("head", ["inside", "layer", "activation", "function"])
def test_the_softmax_is_left_out(head):
    behind = {
        "layer": layers.Softmax(),
        "activation": layers.Activation("softmax"),
        "function": keras.ops.softmax,
    }.get(head, lambda scores: scores)
    inside = "softmax" if head == "inside" else None
    model = build(lambda images: behind(classify(layers.Conv2D(6, 3)(images), activation=inside)))
    images = images_for(model)
    logits = make_twin(model)(images).numpy()
    assert np.abs(logits.sum(-1) - 1).max() > 1e-2
    np.testing.assert_allclose(softmax(logits), model(images), rtol=1e-4, atol=1e-6)


def test_a_network_in_mixed_precision_becomes_float32():
    model = randomize(make("plain"))
    copied = make_twin(in_precision(model, "mixed_bfloat16"))
    assert {layer.dtype_policy.name for layer in copied.layers} == {"float32"}
    images = images_for(model)
    np.testing.assert_allclose(copied(images), model(images), rtol=1e-4, atol=1e-5)


def test_layers_keep_their_names_and_learn():
    model = make("residual")
    for layer in model.layers:
        layer.trainable = False
    copied = make_twin(model)
    assert {layer.name for layer in copied.layers} == {layer.name for layer in model.layers}
    assert len(copied.trainable_weights) == len(make("residual").trainable_weights)


@pytest.mark.parametrize(
    ("middle", "message"),
    {
        layers.Activation("hard_tanh", name="odd"): r"`odd` \(Activation\) can't be made in Keras 2: .*hard_tanh",
        layers.RMSNormalization(name="odd"): r"`odd` \(RMSNormalization\) is unknown to Keras 2",
        LayerScale(0.5, 6, name="odd"): r"`odd` \(LayerScale\) is unknown to Keras 2",
        # Keras 2 has the layer without the option.
        layers.Resizing(12, 9, pad_to_aspect_ratio=True): r"computes something else in Keras 2",
    }.items(),
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_keras_2_lacks_or_computes_otherwise_is_refused(middle, message):
    with pytest.raises(UserError, match=message):
        make_twin(around(middle))


#: Functional operations, each a function of features.
OPERATIONS = {
    "plus": lambda x: 3.0 + x,
    "minus": lambda x: x - 0.5,
    "minus from": lambda x: 0.5 - x,
    "times": lambda x: x * 0.25,
    "divided": lambda x: x / 4.0,
    "sum": lambda x: x + x * 2.0,
    "difference": lambda x: x - x * x,
    "product by one number": lambda x: x * layers.GlobalAveragePooling2D(keepdims=True)(x),
    "maximum": lambda x: keras.ops.maximum(x, x * -0.1),
    "activations": lambda x: keras.ops.relu6(keras.ops.silu(x)) + keras.ops.tanh(x) * keras.ops.sigmoid(x),
    "relu": lambda x: keras.activations.relu(x, max_value=1.0, negative_slope=0.1),
    "hard activations": lambda x: keras.ops.hard_silu(x) + keras.activations.hard_sigmoid(x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_functional_operations_become_layers(name):
    model = build(lambda images: classify(layers.Conv2D(5, 3)(OPERATIONS[name](layers.Conv2D(6, 3)(images)))))
    images = images_for(model)
    np.testing.assert_allclose(make_twin(model)(images), model(images), rtol=1e-4, atol=1e-5)


def test_other_functional_operations_are_refused_by_name():
    model = build(lambda images: classify(keras.ops.sin(layers.Conv2D(6, 3)(images))))
    name = next(operation.name for operation in model.operations if type(operation).__name__ == "Sin")
    with pytest.raises(UserError, match=rf"`{name}` \(Sin\) is a function that Keras 2 lacks"):
        make_twin(model)


@pytest.mark.parametrize("slope", [0.21, float("nan")])
def test_outputs_are_compared(monkeypatch, slope):
    """A layer whose option were translated wrongly, or that made NaN of everything, would be noticed."""
    model = around(layers.LeakyReLU(negative_slope=0.2))
    make_twin(model)
    monkeypatch.setattr(twin, "_RENAMED", {})
    monkeypatch.setattr(tf_keras.layers.LeakyReLU.__init__, "__defaults__", (slope,))
    with pytest.raises(UserError, match="computes something else in Keras 2"):
        make_twin(model)
