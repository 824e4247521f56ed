"""Networks that take images of any size are read at one size."""

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.description import describe
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import takes_any_size, with_image_size, with_sizes_of
from tests.networks import classify, conv_bn


def any_size(*sides) -> keras.Model:
    images = keras.Input((*sides, 3))
    return keras.Model(images, classify(conv_bn(conv_bn(images, 8, strides=2), 6)), name="open")


def test_a_model_at_one_size_has_the_same_layers_and_costs_accordingly():
    model = any_size(None, None)
    fixed = with_image_size(model, (8, 6, 3))
    assert fixed.input_shape == (None, 8, 6, 3)
    assert fixed.layers[1] is model.layers[1]
    images = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype("float32")
    np.testing.assert_array_equal(fixed(images), model(images))
    small, large = (describe(model, image_size=size).macs for size in ((8, 6), 16))
    assert large - 6 * 5 == (16 * 16) / (8 * 6) * (small - 6 * 5)
    assert with_image_size(fixed, (9, 9, 3)) is fixed


def test_the_way_back():
    model = any_size(None, None)
    assert takes_any_size(with_sizes_of(with_image_size(model, (8, 8, 3)), model))
    fixed = any_size(8, 8)
    assert with_sizes_of(fixed, fixed) is fixed


@pytest.mark.parametrize(("sides", "shape"), [((None, 8), (8, 9, 3)), ((None, None), (8, 8, 1))])
def test_other_images_are_refused(sides, shape):
    with pytest.raises(UserError, match="`model` takes images of any"):
        with_image_size(any_size(*sides), shape)


def test_an_open_size_is_refused_with_advice_that_works():
    model = any_size(None, None)
    with pytest.raises(UserError, match=r"fixed size.*`keras.Model\(images, model\(images\)\)`"):
        Graph.from_model(model)
    images = keras.Input((8, 6, 3))
    assert Graph.from_model(keras.Model(images, model(images))).input.shape == (None, 8, 6, 3)


def test_sequential_models_too():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()])
    assert with_image_size(model, (8, 6, 3)).output_shape == (None, 4)
