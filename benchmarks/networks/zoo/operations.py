"""Networks with functional operations, slices and unusual layers between their convolutions."""

from __future__ import annotations

from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, unit

OPERATIONS = Catalogue()


@OPERATIONS.add("One ReLU and one pooling", "both layers are called in several places")
def _reused(x):
    relu, pool = layers.ReLU(), layers.MaxPooling2D()
    for filters in (16, 24, 32):
        x = pool(relu(layers.BatchNormalization()(conv(x, filters))))
    return classify(x)


@OPERATIONS.add("Generalised-mean pooling", "powers of positive features, by `ops`")
def _gem(x):
    x = unit(unit(x, 16, strides=2), 32, strides=2)
    x = ops.mean(ops.power(ops.clip(x, 1e-3, 10.0), 3.0), axis=(1, 2))
    return layers.Dense(10, activation="softmax")(ops.power(x, 1 / 3))


@OPERATIONS.add("Slices", "positions and channels are sliced, flipped and put together again")
def _slices(x):
    x = unit(x, 24)
    x = layers.Concatenate()([x[:, ::2, ::2], x[:, 1::2, 1::2], ops.flip(x, axis=2)[:, ::2, ::2]])
    x = unit(x, 32)
    return classify(unit(layers.Concatenate()([x[..., :20], x[..., 8:]]), 24))


@OPERATIONS.add("Space to depth", "2x2 positions become channels, by Reshape and Permute")
def _space_to_depth(x):
    x = unit(x, 16)
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((16, 2, 16, 2, 16))(x))
    return classify(unit(unit(layers.Reshape((16, 16, 64))(x), 24), 32))


@OPERATIONS.add("Spatial pyramid pooling", "maxima in grids of 4, 2 and 1, flattened")
def _pyramid(x):
    x = unit(unit(x, 16, strides=2), 24)
    levels = [layers.Flatten()(layers.MaxPooling2D(size)(x)) for size in (4, 8, 16)]
    x = layers.Dense(32, activation="relu")(layers.Concatenate()(levels))
    return layers.Dense(10, activation="softmax")(x)


@OPERATIONS.add("VGG with a large head", "Flatten, hidden Dense layers, dropout", random_in_training=True)
def _vgg(x):
    for filters in (16, 32):
        x = layers.MaxPooling2D()(conv(conv(x, filters, activation="relu"), filters, activation="relu"))
    x = layers.Dropout(0.5)(layers.Dense(64, activation="relu")(layers.Flatten()(x)))
    return layers.Dense(10, activation="softmax")(layers.Dense(32, activation="relu")(x))


@OPERATIONS.add("Two poolings", "mean, maximum and standard deviation of all positions")
def _statistics(x):
    x = unit(unit(x, 16, strides=2), 24)
    mean = ops.mean(x, axis=(1, 2))
    deviation = ops.sqrt(ops.mean(ops.square(x), axis=(1, 2)) - ops.square(mean) + 1e-3)
    pooled = layers.Concatenate()([mean, ops.max(x, axis=(1, 2)), deviation])
    return layers.Dense(10)(pooled)


@OPERATIONS.add("Coordinates", "CoordConv: positions as further channels, by `ops`")
def _coordinates(x):
    ones = ops.ones_like(x[..., :1])
    rows, columns = (ops.cumsum(ones, axis=axis) / 16.0 - 1.0 for axis in (1, 2))
    x = unit(layers.Concatenate()([x, rows, columns]), 16)
    return classify(basic_block(x, 24, 2))


@OPERATIONS.add("PReLU and SELU", "activations with weights, and others")
def _activations(x):
    x = layers.PReLU(shared_axes=(1, 2))(layers.BatchNormalization()(conv(x, 16)))
    x = layers.LeakyReLU(0.1)(conv(x, 24, strides=2))
    x = conv(x, 24, activation="selu") * ops.sigmoid(conv(x, 24))
    return classify(ops.tanh(conv(x, 32, activation="mish")))


@OPERATIONS.add("1D convolutions", "a signal of 128 steps with 6 channels", shape=(128, 6))
def _one_dimensional(x):
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 5, padding="same")(x)))
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(24, 3, padding="same")(x)))
        x = layers.ReLU()(layers.Add()([x, layers.Conv1D(16, 3, padding="same")(y)]))
    x = layers.MaxPooling1D(4)(layers.SeparableConv1D(32, 3, activation="relu")(x))
    return layers.Dense(6, activation="softmax")(layers.GlobalAveragePooling1D()(x))


@OPERATIONS.add("3D convolutions", "volumes of 8x16x16", shape=(8, 16, 16, 1))
def _three_dimensional(x):
    for filters in (8, 16):
        # TFLite has no pooling over volumes.
        x = layers.BatchNormalization()(layers.Conv3D(filters, 3, strides=2, padding="same")(x))
        x = layers.ReLU()(x)
    return layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling3D()(x))
