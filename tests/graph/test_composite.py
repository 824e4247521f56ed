"""Layers that consist of other layers are read as the networks that they are; others are left whole."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.graph.layers import original_layer
from tas_tf.space.shape import Shape
from tests.networks import classify
from tests.supernets import Comparison, space_of


def model_of(block) -> keras.Model:
    images = keras.Input((6, 6, 3))
    return keras.Model(images, classify(layers.Conv2D(8, 3, padding="same")(block(images))))


@keras.saving.register_keras_serializable(package="tests.composite")
class Unit(layers.Layer):
    """A convolution with normalisation and activation, which passes the mode on."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.conv = layers.Conv2D(width, 3, padding="same")
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.width))

    def call(self, inputs, training=None):
        return ops.relu(self.norm(self.conv(inputs), training=training))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="tests.composite")
class Block(layers.Layer):
    """A residual block of such units, with a list of layers and a layer that is made where it is called."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.units = [Unit(width, name="first"), Unit(width, name="second")]

    def build(self, shape):
        for unit in self.units:
            unit.build(shape)
            shape = unit.compute_output_shape(shape)

    def call(self, inputs):
        x = inputs
        for unit in self.units:
            x = unit(x)
        return layers.Add()([inputs, x])

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class OnlyInTraining(Unit):
    def call(self, inputs, training=None):
        return self.norm(self.conv(inputs)) if training else self.conv(inputs)


class WithWeight(Unit):
    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return self.scale * self.conv(inputs)


class WithNoise(Unit):
    """Draws one number when it is traced."""

    def call(self, inputs):
        return self.norm(self.conv(inputs)) * keras.random.uniform(())


class WithLambda(Unit):
    """A Lambda inside is made by the class, whose code is known."""

    def __init__(self, width, **kwargs):
        super().__init__(width, **kwargs)
        self.double = layers.Lambda(lambda x: 2.0 * x)

    def build(self, shape):
        super().build(shape)
        self.double.build(shape)

    def call(self, inputs):
        return self.double(self.norm(self.conv(inputs)))


def test_blocks_in_blocks_are_searched():
    model = model_of(lambda x: Block(9, name="two")(Block(9, name="one")(layers.Conv2D(9, 1)(x))))
    graph = Graph.from_model(model)
    assert graph.num_params == model.count_params()
    assert not [node for node in graph if node.kind is Kind.OPAQUE]
    convs = [node for node in graph if node.kind is Kind.CONV]
    assert [conv.path[:-1] for conv in convs[1:5]] == [
        (block, unit) for block in ("one", "two") for unit in ("first", "second")
    ]
    assert original_layer(model, convs[2]) is model.get_layer("one").units[1].conv
    space = space_of(model)
    assert [stage.blocks for stage in space.stages] == [2]
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
    Comparison(space, images).check(Shape.random(space, 0))


def test_reading_a_copy_gives_the_same_graph():
    """The convolutions in the units have no names: Keras numbers those of the copy differently."""
    model = model_of(lambda x: Block(9, name="block")(layers.Conv2D(9, 1, name="conv")(x)))
    copy = keras.Model.from_config(model.get_config())
    inner = [one.get_layer("block").units[0].conv for one in (model, copy)]
    assert inner[0].name != inner[1].name
    graphs = [Graph.from_model(one) for one in (model, model, copy)]
    assert len({graph.digest for graph in graphs}) == 1
    assert graphs[0]["block_first_conv2d_0"].path == ("block", "first", "conv2d_0")
    assert original_layer(copy, graphs[0]["block_first_conv2d_0"]) is inner[1]


@pytest.mark.parametrize("kind", [OnlyInTraining, WithWeight, WithNoise, WithLambda])
def test_a_layer_that_does_more_than_call_layers_is_left_whole(kind):
    keras.saving.register_keras_serializable("tests.composite")(kind)
    graph = Graph.from_model(model_of(lambda x: kind(9, name="whole")(x)))
    assert graph["whole"].kind is Kind.OPAQUE
