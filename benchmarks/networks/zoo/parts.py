"""Layers that most networks share."""

from __future__ import annotations

from keras import layers


def conv(x, filters: int, size: int | tuple[int, int] = 3, strides: int = 1, **options):
    """Applies a convolution that keeps the size of the features, or halves it."""
    return layers.Conv2D(filters, size, strides=strides, padding="same", **options)(x)


def norm_relu(x, activation: str = "relu"):
    """Applies batch normalisation and an activation."""
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def unit(x, filters: int, size: int | tuple[int, int] = 3, strides: int = 1, activation: str = "relu", **options):
    """Applies convolution, batch normalisation and activation."""
    return norm_relu(conv(x, filters, size, strides, use_bias=False, **options), activation)


def conv_norm(x, filters: int, size: int = 3, strides: int = 1, **options):
    """Applies convolution and batch normalisation."""
    return layers.BatchNormalization()(conv(x, filters, size, strides, use_bias=False, **options))


def depthwise_unit(x, size: int = 3, strides: int = 1, activation: str = "relu", **options):
    """Applies depthwise convolution, batch normalisation and activation."""
    x = layers.DepthwiseConv2D(size, strides=strides, padding="same", use_bias=False, **options)(x)
    return norm_relu(x, activation)


def basic_block(x, filters: int, strides: int = 1):
    """Applies the block of ResNet-18; the shortcut is a convolution if the shape changes."""
    y = conv_norm(unit(x, filters, strides=strides), filters)
    if strides > 1 or x.shape[-1] != filters:
        x = conv_norm(x, filters, 1, strides)
    return layers.ReLU()(layers.Add()([x, y]))


def classify(x, classes: int = 10, activation: str | None = "softmax"):
    """Applies global average pooling and the classifier."""
    return layers.Dense(classes, activation=activation)(layers.GlobalAveragePooling2D()(x))
