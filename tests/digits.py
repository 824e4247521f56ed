"""A network, data and settings with which digits are searched in seconds."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from tas_tf.cost.budget import Budget
from tas_tf.data.task import Task
from tas_tf.data.training_data import TrainingData
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.space import SearchSpace
from tas_tf.training.strategy import make_strategy

#: What the tiny network is for.
CLASSES = Classification(10)
#: Three iterations an epoch.
TINY_SEARCH = {
    "epochs": 1,
    "batch_size": 32,
    "lr": 0.05,
    "arch_lr": 0.05,
    "calibration_batches": 2,
    "held_out_limit": 64,
}


def _norm(name: str) -> keras.Layer:
    return layers.BatchNormalization(momentum=0.9, name=name)


def tiny_network(activation: str | None = "softmax", *, norm: Callable[[str], keras.Layer] = _norm) -> keras.Model:
    """A residual net of one stage of two blocks for digits; all its layers are named.

    Args:
        activation: Activation of the last layer.
        norm: Makes the layer of a name that follows each convolution.
    """

    def conv_bn(x, width: int, name: str, strides: int = 1):
        x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name=name)(x)
        return norm(f"{name}_bn")(x)

    images = keras.Input((8, 8, 1), name="pixels")
    x = layers.ReLU(name="stem_relu")(conv_bn(images, 8, "stem", strides=2))
    for block in ("block1", "block2"):
        y = layers.ReLU(name=f"{block}_relu")(conv_bn(x, 7, f"{block}_conv1"))
        x = layers.Add(name=f"{block}_add")([x, conv_bn(y, 8, f"{block}_conv2")])
        x = layers.ReLU(name=block)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, layers.Dense(10, activation=activation, name="classifier")(x), name="tiny")


def tiny_space(**options) -> SearchSpace:
    """The space of the tiny network."""
    return SearchSpace.from_graph(Graph.from_model(tiny_network()), **options)


def tiny_task(**options) -> Task:
    """200 images of digits."""
    return Task.load("digits", train_limit=200, **options)


def tiny_search(**changes) -> SearchSettings:
    """Settings of a search of one epoch."""
    return SearchSettings(**{**TINY_SEARCH, **changes})


def search_quickly(model: keras.Model, task: TrainingData, **changes) -> SearchResult:
    """Searches a model on one device with the settings of `tiny_search`."""
    options = {"strategy": make_strategy("one_device"), "verbose": 0}
    return run_search(SearchSpace.from_model(model), task, Budget.parse("macs:0.5"), tiny_search(**changes), **options)
