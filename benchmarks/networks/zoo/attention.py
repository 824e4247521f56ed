"""Networks with gates, attention and other ways to mix or normalise features."""

from __future__ import annotations

from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import classify, conv, conv_norm, norm_relu, unit

ATTENTION = Catalogue()


def _gated_resnet(x, gate):
    """A residual network whose branches pass a gate."""
    x = unit(x, 16)
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        y = gate(conv_norm(unit(x, filters, strides=strides), filters))
        x = x if filters == x.shape[-1] else conv_norm(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    return classify(x)


@ATTENTION.add("SE-ResNet", "squeeze-and-excitation by Dense layers")
def _squeeze_excite(x):
    def gate(x):
        channels = x.shape[-1]
        y = layers.Dense(channels // 4, activation="relu")(layers.GlobalAveragePooling2D()(x))
        y = layers.Dense(channels, activation="sigmoid")(y)
        return layers.Multiply()([x, layers.Reshape((1, 1, channels))(y)])

    return _gated_resnet(x, gate)


@ATTENTION.add("ECA-ResNet", "channel attention by a convolution along the channels")
def _eca(x):
    def gate(x):
        y = layers.Reshape((x.shape[-1], 1))(layers.GlobalAveragePooling2D()(x))
        y = layers.Conv1D(1, 3, padding="same", use_bias=False, activation="sigmoid")(y)
        return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(y)])

    return _gated_resnet(x, gate)


@ATTENTION.add("CBAM-ResNet", "a shared MLP, then a map from mean and maximum of the channels")
def _cbam(x):
    def gate(x):
        squeeze, excite = layers.Dense(x.shape[-1] // 4, activation="relu"), layers.Dense(x.shape[-1])
        pools = (layers.GlobalAveragePooling2D(keepdims=True), layers.GlobalMaxPooling2D(keepdims=True))
        x = x * ops.sigmoid(ops.add(*(excite(squeeze(pool(x))) for pool in pools)))
        maps = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
        return x * conv(layers.Concatenate()(maps), 1, 7, activation="sigmoid")

    return _gated_resnet(x, gate)


@ATTENTION.add("Selective kernels", "a softmax over two branches for each channel")
def _selective(x):
    x = unit(x, 16)
    for _ in range(2):
        branches = [unit(x, 16), unit(x, 16, 3, dilation_rate=2)]
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Add()(branches))
        shared = conv(pooled, 8, 1, activation="relu")
        scores = ops.softmax(ops.stack([conv(shared, 16, 1) for _ in branches], axis=1), axis=1)
        x = x + branches[0] * scores[:, 0] + branches[1] * scores[:, 1]
    return classify(unit(x, 24))


@ATTENTION.add("Non-local block", "attention between positions by Dot layers")
def _non_local(x):
    x = unit(unit(x, 16, strides=2), 16, strides=2)
    query, key, value = (layers.Reshape((64, 8))(conv(x, 8, 1)) for _ in range(3))
    weights = layers.Softmax()(layers.Dot((2, 2))([query, key]))
    y = layers.Reshape((8, 8, 8))(layers.Dot((2, 1))([weights, value]))
    return classify(unit(layers.Add()([x, conv(y, 16, 1)]), 24))


@ATTENTION.add("Convolutions and attention", "a stem of convolutions, then MultiHeadAttention on 16 positions")
def _hybrid(x):
    for filters in (16, 24, 32):
        x = unit(x, filters, strides=2)
    x = layers.Reshape((16, 32))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 16)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return layers.Dense(10)(layers.GlobalAveragePooling1D()(x))


@ATTENTION.add("MLP-Mixer", "Dense layers across positions, by Permute")
def _mixer(x):
    x = layers.Reshape((64, 24))(layers.Conv2D(24, 4, strides=4)(x))
    for _ in range(2):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        y = layers.Dense(64)(layers.Dense(32, activation="gelu")(y))
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.Dense(24)(layers.Dense(48, activation="gelu")(layers.LayerNormalization()(x)))
        x = layers.Add()([x, y])
    return layers.Dense(10)(layers.GlobalAveragePooling1D()(x))


@ATTENTION.add("ConvMixer", "residual depthwise convolutions between 1x1 convolutions")
def _conv_mixer(x):
    x = norm_relu(layers.Conv2D(32, 4, strides=4)(x), "gelu")
    for _ in range(3):
        y = norm_relu(layers.DepthwiseConv2D(5, padding="same")(x), "gelu")
        x = norm_relu(conv(layers.Add()([x, y]), 32, 1), "gelu")
    return classify(x)


def _normalised_resnet(x, norm):
    x = layers.ReLU()(norm()(conv(x, 16)))
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        y = layers.ReLU()(norm()(conv(x, filters, strides=strides)))
        x = x if filters == x.shape[-1] else conv(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, norm()(conv(y, filters))]))
    return classify(x)


@ATTENTION.add("ResNet with LayerNormalization", "all normalisations over channels")
def _layer_norm(x):
    return _normalised_resnet(x, layers.LayerNormalization)


@ATTENTION.add("ResNet with GroupNormalization", "8 groups of channels")
def _group_norm(x):
    return _normalised_resnet(x, lambda: layers.GroupNormalization(8))


@ATTENTION.add("ResNet with instance normalisation", "GroupNormalization of single channels")
def _instance_norm(x):
    return _normalised_resnet(x, lambda: layers.GroupNormalization(-1))


@ATTENTION.add("ResNet with RMSNormalization", "scaled by the root mean square of the channels")
def _rms_norm(x):
    return _normalised_resnet(x, layers.RMSNormalization)
