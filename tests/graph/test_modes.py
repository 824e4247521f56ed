"""Layers with their own training mode: Monte Carlo dropout, defaults of Keras, random crops."""

import keras
import pytest

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tests.networks import classify


def test_layers_that_are_always_in_training_mode_are_refused():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.5, name="mc")(images, training=True)
    with pytest.raises(UserError, match=r"`mc` \(Dropout\) is called with `training=True`"):
        Graph.from_model(keras.Model(images, classify(x)))


def test_the_default_of_layers_that_process_images_is_no_such_mode():
    images = keras.Input((8, 8, 3))
    x = keras.layers.RandomFlip(name="flip")(keras.layers.Resizing(6, 6)(images))
    graph = Graph.from_model(keras.Model(images, classify(x)))
    assert graph["flip"].is_augmentation
    assert not graph["flip"].kwargs
    plain = graph.leaving_out(lambda node: node.is_augmentation)
    assert "flip" not in plain.by_name
    assert [node.inputs for node in plain if node.class_name == "GlobalAveragePooling2D"] == [graph["flip"].inputs]


def test_a_random_crop_that_makes_other_sizes_is_refused():
    images = keras.Input((8, 8, 3))
    for size, refused in ((6, True), (8, False)):
        model = keras.Model(images, classify(keras.layers.RandomCrop(size, size, name="crop")(images)))
        if refused:
            with pytest.raises(
                UserError, match=r"`crop` \(RandomCrop\) turns 8x8x3 images into 6x6x3 only in training"
            ):
                Graph.from_model(model)
        else:
            assert Graph.from_model(model)["crop"].is_augmentation
