"""Random inputs and outputs of networks: one or several of each."""

from __future__ import annotations

import random

import keras
from keras import layers

from benchmarks.random_channels import LAYER_NORM_FROM
from benchmarks.random_parts import INSIDE, Parts


def draw_inputs(rng: random.Random, parts: Parts) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    """Returns the inputs of a network by name, and the features to begin with."""
    images = keras.Input((*parts.one_of((6, 6), (8, 8), (7, 5)), parts.one_of(3, 3, 1)), name="images")
    kind = rng.choice(["one"] * 6 + ["two images", "table"])
    if kind == "one":
        return {"images": images}, images
    if kind == "table":
        table = keras.Input((4,), name="table")
        scales = layers.Reshape((1, 1, images.shape[-1]))(layers.Dense(images.shape[-1], "sigmoid")(table))
        return {"table": table, "images": images}, layers.Multiply()([images, scales])
    other = keras.Input(images.shape[1:], name="other")
    merge, filters = rng.choice([layers.Add, layers.Concatenate, layers.Subtract]), parts.width()
    pair = [layers.Conv2D(filters, 3, padding="same")(one) for one in (images, other)]
    return {"images": images, "other": other}, merge()(pair)


def draw_outputs(
    rng: random.Random, parts: Parts, inputs: dict[str, keras.KerasTensor], features: list[keras.KerasTensor]
) -> object:
    """Returns the output of a network, or several in a list or dictionary.

    Args:
        rng: Source of random numbers.
        parts: Parts of the network.
        inputs: Its inputs by name.
        features: Features after each group of blocks.
    """
    kind = rng.choice(["one"] * 6 + ["pixels", "heads", "auxiliary", "table"])
    last = features[-1]
    if kind == "pixels":
        return layers.Conv2D(3, 1, activation=rng.choice([None, "softmax", "sigmoid"]))(last)
    if kind == "auxiliary":
        pooled = layers.GlobalAveragePooling2D()(features[0])
        return [layers.Dense(3, "softmax")(pooled), classify(parts, last)]
    if kind == "heads":
        mask = layers.Conv2D(2, 1, activation="sigmoid")(last)
        return {
            "value": layers.Dense(1)(layers.GlobalAveragePooling2D()(last)),
            "mask": mask,
            "a": classify(parts, last),
        }
    if kind == "table" and "table" in inputs:
        joined = [layers.Dense(5, "relu")(inputs["table"]), layers.GlobalAveragePooling2D()(last)]
        return layers.Dense(4)(layers.Concatenate()(joined))
    return classify(parts, last)


def classify(parts: Parts, x):
    """Returns logits or probabilities of four classes."""
    end = parts.one_of(None, None, "softmax")
    kind = parts.one_of("pooled", "pooled", "pooled", "flat", "flat", "convolution")
    if kind == "convolution":
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))
        return layers.Softmax()(x) if end else x
    pool = parts.one_of(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    if kind == "pooled":
        x = pool(keepdims=True)(x) if parts.rarely() else pool()(x)
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    while parts.rng.randrange(3) == 2:
        x = layers.Dense(parts.width(), activation=parts.one_of(*INSIDE), use_bias=parts.one_of(False, True))(x)
        norm = parts.one_of(layers.BatchNormalization, layers.LayerNormalization, layers.Identity)
        narrow = norm is layers.LayerNormalization and x.shape[-1] < LAYER_NORM_FROM
        x = parts.activate(x if narrow else norm()(x))
    return layers.Dense(4, activation=end)(x)
