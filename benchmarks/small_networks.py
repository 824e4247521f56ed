"""Small networks of many kinds with random weights, and a count of their cost that is independent of the library."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from tas_tf.graph.graph import Graph
from tas_tf.space.space import SearchSpace

#: Layers whose kernels are applied at each position, by the end of their class names.
_COUNTED = ("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-adds of a built model, layer by layer from kernels and output sizes."""
    macs = 0
    # Keras has no public list of a model's calls. A layer may have been called outside of the model, too.
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    calls = {call for calls_of_depth in by_depth.values() for call in calls_of_depth}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            macs += count_macs(layer) * max(1, len(calls.intersection(layer._inbound_nodes)))
            continue
        if not type(layer).__name__.endswith(_COUNTED):
            continue
        kernels = sum(int(np.prod(weight.shape)) for weight in layer.weights if weight.name.endswith("kernel"))
        for call in calls.intersection(layer._inbound_nodes):
            (tensor,) = call.input_tensors if "Transpose" in type(layer).__name__ else call.output_tensors
            macs += kernels * int(np.prod(tensor.shape[1:-1]))
    return macs


def has_composite_layers(model: keras.Model) -> bool:
    """Whether a model has layers that consist of layers, whose multiply-adds `count_macs` doesn't find."""
    layers_of = [layer for layer in model.layers if not isinstance(layer, keras.Model)]
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return any(layer._layers for layer in layers_of) or any(map(has_composite_layers, nested))


def conv_bn(x, width: int, size: int = 3, strides: int = 1, **options):
    """Applies convolution, BN and ReLU."""
    x = layers.Conv2D(width, size, strides=strides, padding="same", use_bias=False, **options)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual(x, width: int, inner: int, strides: int = 1):
    """Applies a block of two convolutions; the shortcut is a convolution if the shape changes."""
    y = conv_bn(x, inner, strides=strides)
    y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
    if strides > 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, strides=strides)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def classify(x, classes: int = 5, activation: str | None = None):
    """Applies pooling and the classifier."""
    return layers.Dense(classes, activation=activation)(layers.GlobalAveragePooling2D()(x))


def _plain(x):
    return classify(conv_bn(conv_bn(x, 8), 10))


def _residual(x):
    x = conv_bn(x, 8)
    for _ in range(3):
        x = residual(x, 8, 6)
    for block in range(2):
        x = residual(x, 12, 10, strides=1 if block else 2)
    return classify(x, activation="softmax")


def _preactivation(x):
    x = layers.Conv2D(8, 3, padding="same")(x)
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(conv_bn(y, 6))])
    return layers.Softmax()(classify(layers.ReLU()(layers.BatchNormalization()(x))))


def _gate_of_convs(x):
    x = conv_bn(x, 16)
    gate = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(16, 1, activation="sigmoid")(gate)
    return classify(conv_bn(layers.Multiply()([x, gate]), 9))


def _gate_of_dense(x):
    x = conv_bn(x, 16)
    gate = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Reshape((1, 1, 16))(layers.Dense(16, activation="sigmoid")(gate))
    return classify(conv_bn(layers.Multiply()([x, gate]), 9))


def _concat(x):
    x = conv_bn(x, 8)
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same")(y)])
    return classify(layers.BatchNormalization()(x))


def _concat_in_space(x):
    return classify(conv_bn(layers.Concatenate(axis=1)([conv_bn(x, 8), conv_bn(x, 8)]), 7))


def _flatten(x):
    x = layers.Flatten()(conv_bn(conv_bn(x, 6, strides=2), 5))
    return layers.Dense(5)(layers.Dense(12, activation="relu")(x))


def _separable(x):
    x = layers.SeparableConv2D(12, 3, padding="same")(conv_bn(x, 8))
    return classify(layers.ReLU()(layers.BatchNormalization()(x)))


def _depthwise(x):
    x = layers.Conv2D(8, 3, groups=8, padding="same")(conv_bn(x, 8))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    return classify(conv_bn(x, 10, 1))


def _u_net(x):
    skipped = conv_bn(x, 6)
    x = conv_bn(layers.MaxPooling2D()(skipped), 8)
    x = layers.Conv2DTranspose(7, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.Concatenate()([layers.ReLU()(layers.BatchNormalization()(x)), skipped])
    return classify(layers.Conv2DTranspose(9, 2, activation="relu")(conv_bn(x, 6)))


def _grouped(x):
    x = conv_bn(x, 8)
    for _ in range(2):
        y = conv_bn(conv_bn(x, 12, 1), 12, groups=4)
        y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return classify(layers.Conv2D(12, 3, groups=2, activation="relu")(x))


def _multiplied(x):
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(conv_bn(x, 6))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(9, 3, depth_multiplier=3, activation="relu")(x)
    return classify(layers.Conv2D(18, 3, padding="same", groups=9)(x))


def _normalised(x):
    x = layers.ReLU()(layers.GroupNormalization(4)(layers.Conv2D(12, 3)(x)))
    return classify(layers.ReLU()(layers.RMSNormalization()(layers.Conv2D(10, 3)(x))))


def _nested(x):
    stem = keras.Sequential([layers.Conv2D(8, 3, name="conv"), layers.BatchNormalization()])
    image = keras.Input((None, None, 8))
    body = keras.Model(image, layers.ReLU()(layers.Conv2D(12, 3, name="conv")(image)))
    return classify(layers.Conv2D(6, 1, name="conv")(body(stem(x))))


def _arithmetic(x):
    x = layers.Conv2D(8, 3)(x)
    x = x * layers.ReLU(6.0)(x + 3.0) / 6.0
    x = conv_bn(ops.relu(x) / 6, 9)
    return classify(x + x)


#: Functions from images of 8 x 8 x 3 to class scores.
BODIES = {
    body.__name__.lstrip("_"): body
    for body in (
        _plain,
        _residual,
        _preactivation,
        _gate_of_convs,
        _gate_of_dense,
        _concat,
        _concat_in_space,
        _flatten,
        _separable,
        _depthwise,
        _u_net,
        _grouped,
        _multiplied,
        _normalised,
        _nested,
        _arithmetic,
    )
}


def make(name: str) -> keras.Model:
    """Builds the network of one of `BODIES`."""
    images = keras.Input((8, 8, 3), name="images")
    return keras.Model(images, BODIES[name](images), name=name)


def residual_network(*, num_stages: int = 2, normalise: bool = True, synchronized: bool = False) -> keras.Model:
    """Builds a stem and stages of two blocks with named layers; stage 2 starts with a convolution as shortcut."""

    def conv(x, filters, name, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=not normalise, name=name)(x)
        if not normalise:
            return x
        return layers.BatchNormalization(epsilon=1e-3, synchronized=synchronized, name=f"{name}_bn")(x)

    def block(x, filters, inner, name, strides=1):
        y = layers.ReLU()(conv(x, inner, f"{name}_conv1", strides=strides))
        y = conv(y, filters, f"{name}_conv2")
        if strides > 1:
            x = conv(x, filters, f"{name}_shortcut", size=1, strides=strides)
        return layers.ReLU(name=name)(layers.Add(name=f"{name}_add")([x, y]))

    images = keras.Input((8, 8, 3), name="images")
    x = layers.ReLU()(conv(images, 8, "stem"))
    x = block(x, 8, 6, "block1")
    x = block(x, 8, 7, "block2")
    if num_stages > 1:
        x = block(x, 12, 10, "block3", strides=2)
        x = block(x, 12, 9, "block4")
    x = layers.Dense(5, name="classifier")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, x, name="residual")


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Draws all weights at random, so that no bias is 0 and no BN is the identity."""
    draw_weights(model.weights, np.random.default_rng(seed))
    return model


def draw_weights(weights: list, rng: np.random.Generator) -> None:
    """Draws weights at random such that signals keep their magnitude from layer to layer."""
    for weight in weights:
        if weight.name.endswith("kernel"):
            fan_in = np.prod(weight.shape[:-2] if weight.name == "depthwise_kernel" else weight.shape[:-1])
            weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))
        elif weight.name.endswith(("gamma", "variance")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name.endswith(("beta", "bias", "mean")):
            weight.assign(rng.normal(0, 0.2, weight.shape))


def space_of(model: keras.Model, **options) -> SearchSpace:
    """Builds the search space of a model."""
    return SearchSpace.from_graph(Graph.from_model(model), **options)
