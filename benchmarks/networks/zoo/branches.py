"""Networks of parallel branches: concatenated, added, or merged otherwise."""

from __future__ import annotations

from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import classify, conv, conv_norm, norm_relu, unit

BRANCHES = Catalogue()


@BRANCHES.add("DenseNet-BC", "bottlenecks, growth 12, compression to one half")
def _densenet(x):
    x = conv(x, 24)
    for block in range(2):
        if block:
            x = layers.AveragePooling2D(2)(conv(norm_relu(x), x.shape[-1] // 2, 1, use_bias=False))
        for _ in range(4):
            y = conv(norm_relu(x), 48, 1, use_bias=False)
            x = layers.Concatenate()([x, conv(norm_relu(y), 12, use_bias=False)])
    return classify(norm_relu(x))


@BRANCHES.add("GoogLeNet", "inception modules of four branches")
def _inception(x):
    x = layers.MaxPooling2D()(unit(x, 24))
    for scale in (1, 2):
        branches = [unit(x, 16 * scale, 1), unit(unit(x, 12 * scale, 1), 24 * scale)]
        branches.append(unit(unit(x, 4 * scale, 1), 8 * scale, 5))
        branches.append(unit(layers.MaxPooling2D(3, strides=1, padding="same")(x), 8 * scale, 1))
        x = layers.Concatenate()(branches)
    return classify(layers.Dropout(0.0)(x))


@BRANCHES.add("SqueezeNet", "fire modules; the classifier is a convolution")
def _squeezenet(x):
    x = layers.MaxPooling2D()(conv(x, 32, activation="relu"))
    for squeeze in (8, 8, 16):
        x = conv(x, squeeze, 1, activation="relu")
        sides = [conv(x, 4 * squeeze, size, activation="relu") for size in (1, 3)]
        x = layers.Concatenate()(sides)
    return layers.Softmax()(layers.GlobalAveragePooling2D()(conv(x, 10, 1, activation="relu")))


@BRANCHES.add("RepVGG in training", "3x3, 1x1 and normalised identity, added")
def _repvgg(x):
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1), (32, 1)):
        branches = [conv_norm(x, filters, 3, strides), conv_norm(x, filters, 1, strides)]
        if strides == 1 and filters == x.shape[-1]:
            branches.append(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.Add()(branches))
    return classify(x)


@BRANCHES.add("HRNet", "two resolutions that exchange features")
def _hrnet(x):
    high = unit(unit(x, 16, strides=2), 16)
    low = unit(high, 32, strides=2)
    for _ in range(2):
        high, low = unit(high, 16), unit(low, 32)
        up = layers.UpSampling2D(interpolation="nearest")(conv_norm(low, 16, 1))
        down = conv_norm(high, 32, 3, 2)
        high, low = layers.ReLU()(layers.Add()([high, up])), layers.ReLU()(layers.Add()([low, down]))
    up = layers.UpSampling2D(interpolation="bilinear")(low)
    return classify(unit(layers.Concatenate()([high, up]), 48, 1))


@BRANCHES.add("Siamese branches", "one convolution for two halves of the image")
def _siamese(x):
    shared = [layers.Conv2D(16, 3, strides=2), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(24, 3)]
    halves = []
    for half in ops.split(x, 2, axis=2):
        for layer in shared:
            half = layer(half)
        halves.append(half)
    difference = ops.absolute(layers.Subtract()(halves))
    return classify(unit(difference, 24))


@BRANCHES.add("Recurrent convolution", "one convolution applied three times, with normalisations of its own")
def _recurrent(x):
    x, again = unit(x, 16), layers.Conv2D(16, 3, padding="same", use_bias=False)
    for _ in range(3):
        x = norm_relu(again(x))
    return classify(unit(x, 24))


@BRANCHES.add("Maxout", "the maximum of two convolutions, and of the halves of one")
def _maxout(x):
    x = layers.Maximum()([conv(x, 16), conv(x, 16)])
    first, second = ops.split(conv(layers.MaxPooling2D()(x), 48), 2, axis=-1)
    return classify(unit(ops.maximum(first, second), 32))


@BRANCHES.add("CReLU", "Concatenate of features and their negatives")
def _crelu(x):
    for filters in (12, 16):
        x = layers.BatchNormalization()(conv(x, filters))
        x = layers.MaxPooling2D()(layers.ReLU()(layers.Concatenate()([x, -x])))
    return classify(unit(x, 32))


@BRANCHES.add("Gated linear unit", "one half of the channels gates the other")
def _glu(x):
    x = unit(x, 24)
    for _ in range(2):
        values, gates = ops.split(conv(x, 48), 2, axis=-1)
        x = x + values * ops.sigmoid(gates)
    return classify(x)
