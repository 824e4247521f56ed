"""What calls keep, compared with what the gradient of a whole network reads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.training.calls import record_calls, size_of
from tas_tf.training.kept import kept_by_calls
from tests.digits import tiny_network

_VIEWS = ("Reshape", "Identity", "IdentityN", "Squeeze", "ExpandDims")
_IMAGES = 5


def kept_by(model: keras.Model) -> float:
    """Bytes for each image, added up over calls."""
    recorded = record_calls(model)
    made = {id(one): size_of(one) for call in recorded.calls for one in call.makes}
    kept = kept_by_calls(recorded)
    shared = frozenset().union(*(one.tensors for one in kept))
    return sum(made.get(key, 0) for key in shared) + sum(one.inside for one in kept)


def read_by_gradient(model: keras.Model) -> float:
    """Bytes for each image of what operations of the gradient read of the forward pass, apart from the images."""
    found = {}

    @tf.autograph.experimental.do_not_convert
    def run(*inputs):
        graph = tf.compat.v1.get_default_graph()
        with tf.GradientTape() as tape:
            outputs = model(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
        forward = set(graph.get_operations())
        tape.gradient(outputs, [one.value for one in model.trainable_variables])
        for operation in graph.get_operations():
            if operation in forward or operation.type in ("Shape", "ShapeN", "Size"):
                continue
            for tensor in operation.inputs:
                while tensor.op in forward and tensor.op.type in _VIEWS:
                    tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
                images = tensor.shape.rank and tensor.shape[0] in (_IMAGES, 64 * _IMAGES, 16 * _IMAGES)
                if tensor.op in forward and tensor.op.type != "Placeholder" and images:
                    found[tensor.name] = tensor.shape.num_elements() * tensor.dtype.size / _IMAGES

    specs = [tf.TensorSpec([size or _IMAGES for size in one.shape], one.dtype) for one in model.inputs]
    tf.function(run).get_concrete_function(*specs)
    return sum(found.values())


def of(*made: keras.layers.Layer) -> keras.Model:
    """A network of a convolution, the layers, and another convolution."""
    x = images = keras.Input((8, 8, 3))
    for layer in (layers.Conv2D(8, 3, padding="same"), *made):
        x = layer(x)
    return keras.Model(images, layers.Conv2D(2, 1)(x) if len(x.shape) == 4 else layers.Dense(2)(x))


def attention(x):
    flat = layers.Reshape((64, 8))(x)
    return layers.MultiHeadAttention(2, 4)(flat, flat)


@pytest.mark.parametrize(
    "make",
    [
        lambda: of(layers.BatchNormalization(), layers.ReLU()),
        lambda: of(layers.Conv2D(8, 3, activation="silu"), layers.Activation("gelu")),
        lambda: of(layers.SeparableConv2D(5, 3, padding="same"), layers.Dropout(0.5), layers.MaxPooling2D()),
        lambda: of(layers.LayerNormalization(), layers.Flatten()),
        lambda: of(lambda x: x * layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x)) + x),
        lambda: of(lambda x: layers.Concatenate()([x, layers.ReLU()(x), x]), layers.RandomFlip()),
        lambda: of(attention),
        tiny_network,
    ],
)
def test_calls_keep_what_the_gradient_reads(make):
    model = make()
    wanted = read_by_gradient(model)
    assert wanted > 0
    # Statistics of a batch are counted as well, which these small networks tell apart.
    assert kept_by(model) == pytest.approx(wanted, rel=0.06)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = of(layers.BatchNormalization(), layers.ReLU())
    finally:
        keras.config.set_dtype_policy("float32")
    assert kept_by(model) == pytest.approx(read_by_gradient(model), rel=0.06)


@pytest.mark.slow
def test_a_supernet():
    body = build_supernet(SearchSpace.from_model(tiny_network()), num_drawn=2).body
    images, *sample = body.inputs
    recorded = record_calls(body)
    kept = kept_by_calls(recorded)
    # Three convolutions of seven or eight channels keep what they read, their features and their outputs.
    assert images.shape[1:] == (8, 8, 1)
    assert len(sample) == 3
    least = sum(size_of(call.makes[0]) for call in recorded.calls if "SearchableConv" in type(call.operation).__name__)
    assert sum(one.inside for one in kept) > 0.9 * least


def test_layers_before_the_first_weight_keep_nothing_and_no_state_changes():
    noise, norm = layers.RandomTranslation(0.1, 0.1), layers.BatchNormalization()
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, norm(layers.Conv2D(4, 3, activity_regularizer="l2")(noise(images))))
    before = [one.numpy() for one in model.variables]
    recorded = record_calls(model)
    kept = kept_by_calls(recorded)
    assert [call.operation for call in recorded.calls] == model.layers[1:]
    assert (kept[0].tensors, kept[0].inside) == (frozenset(), 0)
    assert kept[1].tensors == {id(recorded.calls[0].makes[0]), id(recorded.calls[1].makes[0])}
    for one, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), value)
    assert model.losses == []
