"""Residual networks and their relatives."""

from __future__ import annotations

import keras
from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, conv_norm, norm_relu, unit

RESIDUAL = Catalogue()


def _option_a(x, pad):
    """ResNet-14 for CIFAR, with shortcuts that have no weights."""
    x = unit(x, 16)
    for filters in (16, 32, 64):
        for _ in range(2):
            strides = 1 if filters == x.shape[-1] else 2
            y = conv_norm(unit(x, filters, strides=strides), filters)
            x = layers.ReLU()(layers.Add()([x if strides == 1 else pad(x), y]))
    return classify(x)


@RESIDUAL.add("ResNet-14 with option A", "shortcut: slice of positions, then channels of zeros by `ops.pad`")
def _padded(x):
    def pad(x):
        added = x.shape[-1] // 2
        return ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [added, added]])

    return _option_a(x, pad)


@RESIDUAL.add("ResNet-14 with option A by Concatenate", "shortcut: pooling, then Concatenate with `ops.zeros_like`")
def _concatenated(x):
    def pad(x):
        x = layers.AveragePooling2D(2)(x)
        return layers.Concatenate()([x, ops.zeros_like(x)])

    return _option_a(x, pad)


@RESIDUAL.add("Pre-activation ResNet", "normalisation and activation before each convolution")
def _preactivation(x):
    x = conv(x, 16)
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        y = norm_relu(x)
        shortcut = x if filters == x.shape[-1] else conv(y, filters, 1, strides)
        x = layers.Add()([shortcut, conv(unit(y, filters, strides=strides), filters)])
    return classify(norm_relu(x))


@RESIDUAL.add("Wide ResNet-10-2", "wide blocks with dropout between their convolutions", random_in_training=True)
def _wide(x):
    x = conv(x, 16)
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        y = norm_relu(x)
        branch = layers.Dropout(0.3)(unit(y, filters, strides=strides))
        x = layers.Add()([conv(y, filters, 1, strides), conv(branch, filters)])
    return classify(norm_relu(x))


@RESIDUAL.add("ResNet with stochastic depth", "Dropout per image on the branches", random_in_training=True)
def _stochastic_depth(x):
    x = unit(x, 16)
    for rate in (0.1, 0.2, 0.3):
        y = layers.Dropout(rate, noise_shape=(None, 1, 1, 1))(conv_norm(unit(x, 16), 16))
        x = layers.ReLU()(layers.Add()([x, y]))
    return classify(x)


@RESIDUAL.add("ResNeXt", "grouped convolutions, 8 groups")
def _resnext(x):
    x = unit(x, 32)
    for filters, strides in ((64, 1), (64, 1), (128, 2), (128, 1)):
        y = unit(unit(x, filters // 2, 1), filters // 2, strides=strides, groups=8)
        y = conv_norm(y, filters, 1)
        x = x if filters == x.shape[-1] else conv_norm(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    return classify(x)


@RESIDUAL.add("RegNetY", "groups of 8 channels, with a gate")
def _regnet(x):
    x = unit(x, 16, strides=2)
    for filters, strides in ((24, 1), (48, 2), (48, 1), (48, 1)):
        y = unit(unit(x, filters, 1), filters, strides=strides, groups=filters // 8)
        gate = conv(layers.GlobalAveragePooling2D(keepdims=True)(y), x.shape[-1] // 4, 1, activation="relu")
        y = conv_norm(layers.Multiply()([y, conv(gate, filters, 1, activation="sigmoid")]), filters, 1)
        x = x if strides == 1 and filters == x.shape[-1] else conv_norm(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    return classify(x)


@RESIDUAL.add("Res2Net", "a block splits its channels into 4 parts, each added to the next")
def _res2net(x):
    x = unit(x, 32)
    for _ in range(2):
        parts = ops.split(unit(x, 32, 1), 4, axis=-1)
        made = [parts[0]]
        for part in parts[1:]:
            made.append(unit(part if len(made) == 1 else layers.Add()([part, made[-1]]), 8))
        x = layers.ReLU()(layers.Add()([x, conv_norm(layers.Concatenate()(made), 32, 1)]))
    return classify(x)


@RESIDUAL.add("ConvNeXt block", "depthwise 7x7, LayerNormalization, GELU, Dense layers on positions")
def _convnext(x):
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(24, 4, strides=4)(x))
    for _ in range(3):
        y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
        x = layers.Add()([x, layers.Dense(24)(layers.Dense(96, activation="gelu")(y))])
    return layers.Dense(10)(layers.LayerNormalization(epsilon=1e-6)(layers.GlobalAveragePooling2D()(x)))


@RESIDUAL.add("ConvNeXt V2 block", "global response normalisation by `ops`")
def _convnext_v2(x):
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(24, 4, strides=4)(x))
    for _ in range(3):
        y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
        y = layers.Dense(96, activation="gelu")(y)
        norms = ops.norm(y, axis=(1, 2), keepdims=True)
        y = y + y * (norms / (ops.mean(norms, axis=-1, keepdims=True) + 1e-6))
        x = layers.Add()([x, layers.Dense(24)(y)])
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


@RESIDUAL.add("ResNet of nested models", "each block is a functional model of its own")
def _nested_blocks(x):
    x = unit(x, 16)
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        inputs = keras.Input(x.shape[1:])
        x = keras.Model(inputs, basic_block(inputs, filters, strides))(x)
    return classify(x)


@RESIDUAL.add("ReZero ResNet", "branches times 0.5, by arithmetic alone")
def _scaled(x):
    x = unit(x, 16)
    for _ in range(3):
        x = ops.relu(x + 0.5 * conv_norm(unit(x, 16), 16))
    return classify(x)
