"""Networks for other tasks than one class of several, and with unusual ends."""

from __future__ import annotations

import keras
from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, norm_relu, unit

TASKS = Catalogue()


def _features(x):
    x = unit(x, 16)
    for filters, strides in ((16, 1), (32, 2)):
        x = basic_block(x, filters, strides)
    return x


@TASKS.add(
    "Cats and dogs",
    "the network of Keras's image classification tutorial: Rescaling, SeparableConv2D, one sigmoid",
    shape=(64, 64, 3),
    random_in_training=True,
)
def _cats_and_dogs(x):
    x = norm_relu(conv(layers.Rescaling(1 / 255)(x), 16, strides=2))
    previous = x
    for filters in (24, 32, 40):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = previous = layers.add([x, conv(previous, filters, 1, 2)])
    x = norm_relu(layers.SeparableConv2D(64, 3, padding="same")(x))
    return layers.Dense(1, activation="sigmoid")(layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x)))


@TASKS.add("Several labels", "8 sigmoids")
def _multilabel(x):
    return classify(_features(x), 8, "sigmoid")


@TASKS.add("Regression", "2 linear outputs", task="regression")
def _regression(x):
    return classify(_features(x), 2, None)


@TASKS.add("One logit", "a single linear output, for a yes or no", task="binary")
def _binary(x):
    return classify(_features(x), 1, None)


@TASKS.add("Log-softmax", "ends in logarithms of probabilities")
def _log_softmax(x):
    return ops.log_softmax(classify(_features(x), activation=None))


@TASKS.add("Temperature", "logits are divided by 2 before the softmax")
def _temperature(x):
    return layers.Softmax()(classify(_features(x), activation=None) / 2.0)


@TASKS.add("Scaled end", "4 outputs from 0 to 10: a sigmoid times 10", task="regression")
def _scaled(x):
    return classify(_features(x), 4, "sigmoid") * 10.0


@TASKS.add("Any image size", "(None, None, 3), checked at 40x32", shape=(None, None, 3), image_size=(40, 32))
def _any_size(x):
    return classify(_features(x))


@TASKS.add(
    "U-Net of any image size",
    "(None, None, 1), a class for each pixel, checked at 32x48",
    shape=(None, None, 1),
    image_size=(32, 48),
)
def _any_size_pixels(x):
    skipped = unit(x, 12)
    x = unit(layers.MaxPooling2D()(skipped), 24)
    x = layers.Conv2DTranspose(12, 3, strides=2, padding="same")(x)
    return conv(unit(layers.Concatenate()([x, skipped]), 12), 3, 1, activation="softmax")


@TASKS.add("Metric learning", "16 numbers of unit length", task="regression")
def _embedding(x):
    return layers.UnitNormalization()(classify(_features(x), 16, None))


@TASKS.add("Two heads as one output", "classes and coordinates, concatenated", task="regression")
def _concatenated(x):
    x = layers.GlobalAveragePooling2D()(_features(x))
    return layers.Concatenate()([layers.Dense(4)(x), layers.Dense(2, activation="sigmoid")(x)])


@TASKS.add(
    "Preprocessing inside", "Normalization adapted to data, then Rescaling and augmentation", random_in_training=True
)
def _preprocessing(x):
    given = x
    normalization = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])
    x = layers.RandomFlip("horizontal")(normalization(layers.Rescaling(2.0)(x)))
    return keras.Model(given, classify(_features(x)), name="preprocessing_inside")
