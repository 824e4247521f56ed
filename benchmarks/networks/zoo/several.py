"""Networks with several inputs or outputs."""

from __future__ import annotations

import keras
from keras import layers

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, unit

SEVERAL = Catalogue()


def _stages(x):
    """Features after each of three stages."""
    x = unit(x, 16)
    for filters in (16, 32, 48):
        x = basic_block(basic_block(x, filters, 1 if filters == 16 else 2), filters)
        yield x


@SEVERAL.add("Two heads", "classes and a value, in a dictionary", task={"size": "regression"})
def _two_heads(images):
    *_, x = _stages(images)
    pooled = layers.GlobalAveragePooling2D()(x)
    heads = {"kind": layers.Dense(10, "softmax", name="kind")(pooled), "size": layers.Dense(1, name="size")(pooled)}
    return keras.Model(images, heads)


@SEVERAL.add("Class and mask", "classes of images from the last features, decisions about pixels from the first")
def _class_and_mask(images):
    first, *_, last = _stages(images)
    return keras.Model(images, [classify(last), layers.Conv2D(3, 1, activation="sigmoid")(first)])


@SEVERAL.add("Auxiliary classifier", "a second softmax halfway, as in GoogLeNet")
def _auxiliary(images):
    _, middle, last = _stages(images)
    return keras.Model(images, [classify(last), classify(unit(middle, 24, 1))])


@SEVERAL.add("FPN heads", "one head with shared weights at each level of a feature pyramid", task="multilabel")
def _pyramid(images):
    levels = [conv(x, 24, 1) for x in _stages(images)]
    for number in (1, 0):
        levels[number] = layers.Add()([levels[number], layers.UpSampling2D()(levels[number + 1])])
    head = [layers.Conv2D(24, 3, padding="same", activation="relu"), layers.Conv2D(4, 3, padding="same")]
    return keras.Model(images, [head[1](head[0](level)) for level in levels])


@SEVERAL.add("Image and table", "rows of a table join the features before the classifier")
def _image_and_table(images):
    table = keras.Input((6,), name="table")
    *_, x = _stages(images)
    rows = layers.Dense(12, "relu")(table)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), rows])
    return keras.Model({"images": images, "table": table}, layers.Dense(10, "softmax")(x))


@SEVERAL.add("FiLM", "a table scales and shifts the channels of features")
def _film(images):
    table = keras.Input((6,), name="table")
    x = unit(images, 24)
    scale, shift = (layers.Reshape((1, 1, 24))(layers.Dense(24)(table)) for _ in range(2))
    x = layers.Add()([layers.Multiply()([x, scale]), shift])
    return keras.Model([images, table], classify(basic_block(basic_block(x, 32, 2), 32)))


@SEVERAL.add("Two images", "two inputs through the same layers, and their difference")
def _siamese(images):
    other = keras.Input(images.shape[1:], name="other")
    x = keras.Input(images.shape[1:], name="one")
    *_, features = _stages(x)
    encoder = keras.Model(x, layers.GlobalAveragePooling2D()(features), name="encoder")
    difference = layers.Subtract()([encoder(images), encoder(other)])
    return keras.Model([images, other], layers.Dense(1, "sigmoid")(difference))
