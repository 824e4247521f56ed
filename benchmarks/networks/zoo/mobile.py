"""Networks for phones and microcontrollers, MLPerf Tiny's among them."""

from __future__ import annotations

import keras
from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, conv_norm, depthwise_unit, norm_relu, unit

MOBILE = Catalogue()


def _shuffle(x, groups: int):
    """Mixes the channels of groups, as ShuffleNet does."""
    height, width, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height, width, groups, channels // groups))
    return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, height, width, channels))


@MOBILE.add("ShuffleNet v1", "grouped 1x1 convolutions, channel shuffle by `ops`")
def _shufflenet_v1(x):
    x = unit(x, 24, strides=2)
    for _ in range(3):
        y = _shuffle(unit(x, 24, 1, groups=3), 3)
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, conv_norm(y, 24, 1, groups=3)]))
    return classify(unit(x, 48, 1))


@MOBILE.add("ShuffleNet v2", "channel split by `ops.split`, then channel shuffle")
def _shufflenet_v2(x):
    x = unit(x, 24, strides=2)
    for _ in range(2):
        left, right = ops.split(x, 2, axis=-1)
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(unit(right, 12, 1)))
        x = _shuffle(layers.Concatenate()([left, unit(y, 12, 1)]), 2)
    return classify(unit(x, 48, 1))


@MOBILE.add("ShuffleNet v2 without shuffle", "the halves change sides instead")
def _swapping(x):
    x = unit(x, 24, strides=2)
    for _ in range(3):
        left, right = x[..., :12], x[..., 12:]
        right = unit(layers.DepthwiseConv2D(3, padding="same")(unit(right, 12, 1)), 12, 1)
        x = layers.Concatenate()([right, left])
    return classify(unit(x, 48, 1))


@MOBILE.add("GhostNet", "half of the features from cheap depthwise convolutions")
def _ghostnet(x):
    def ghost(x, filters: int, activation: str = "relu"):
        first = unit(x, filters // 2, 1, activation=activation)
        return layers.Concatenate()([first, depthwise_unit(first, activation=activation)])

    x = unit(x, 16, strides=2)
    for filters, expansion in ((16, 48), (16, 48)):
        x = layers.Add()([x, ghost(ghost(x, expansion), filters, "linear")])
    return classify(unit(x, 64, 1))


@MOBILE.add("MobileOne in training", "parallel depthwise and pointwise branches, added")
def _mobileone(x):
    x = unit(x, 16, strides=2)
    for filters in (16, 24, 24):
        makers = [lambda size=size: layers.DepthwiseConv2D(size, padding="same", use_bias=False) for size in (3, 3, 1)]
        branches = [layers.BatchNormalization()(make()(x)) for make in makers]
        x = layers.ReLU()(layers.Add()([*branches, layers.BatchNormalization()(x)]))
        branches = [conv_norm(x, filters, 1) for _ in range(2)]
        if filters == x.shape[-1]:
            branches.append(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.Add()(branches))
    return classify(x)


@MOBILE.add("Depth multiplier", "depthwise convolutions with two outputs a channel")
def _multiplied(x):
    x = unit(x, 12)
    for filters in (16, 24):
        x = unit(depthwise_unit(x, strides=2, depth_multiplier=2), filters, 1)
    return classify(x)


@MOBILE.add("Separable convolutions", "SeparableConv2D, once with a depth multiplier of 2")
def _separable(x):
    x = unit(x, 16)
    for filters, multiplier in ((24, 1), (32, 2), (32, 1)):
        x = norm_relu(
            layers.SeparableConv2D(filters, 3, padding="same", depth_multiplier=multiplier, use_bias=False)(x)
        )
    return classify(x)


@MOBILE.add("MLPerf Tiny: image classification", "ResNet-8 for CIFAR-10")
def _image_classification(x):
    x = unit(x, 16)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = unit(x, filters, strides=strides)
        y = conv_norm(y, filters)
        x = x if strides == 1 else conv(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return layers.Dense(10, activation="softmax", kernel_initializer="he_normal")(x)


@MOBILE.add("MLPerf Tiny: visual wake words", "MobileNetV1 of 0.25 of the width", shape=(96, 96, 3))
def _visual_wake_words(x):
    x = unit(x, 8, strides=2)
    widths = (16, 32, 32, 64, 64, *[128] * 6, 256, 256)
    for number, filters in enumerate(widths):
        x = unit(depthwise_unit(x, strides=2 if number in (1, 3, 5, 11) else 1), filters, 1)
    x = layers.Flatten()(layers.AveragePooling2D(x.shape[1:3])(x))
    return layers.Dense(2, activation="softmax")(x)


@MOBILE.add(
    "MLPerf Tiny: keyword spotting",
    "DS-CNN on spectrograms of 49x10, with dropout",
    shape=(49, 10, 1),
    random_in_training=True,
)
def _keyword_spotting(x):
    x = layers.Dropout(0.2)(unit(x, 64, (10, 4), 2))
    for _ in range(4):
        x = unit(depthwise_unit(x), 64, 1)
    x = layers.AveragePooling2D(x.shape[1:3])(layers.Dropout(0.4)(x))
    return layers.Dense(12, activation="softmax")(layers.Flatten()(x))


@MOBILE.add(
    "MLPerf Tiny: anomaly detection",
    "autoencoder of Dense layers alone, 640 numbers in and out",
    shape=(640,),
    task="regression",
)
def _anomaly_detection(x):
    given = x
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = norm_relu(layers.Dense(units)(x))
    return keras.Model(given, layers.Dense(640)(x), name="anomaly_detection")


@MOBILE.add("ResNet-10 for grey images", "one channel, 28x28", shape=(28, 28, 1))
def _grey(x):
    x = unit(x, 16)
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2)):
        x = basic_block(x, filters, strides)
    return classify(x)
