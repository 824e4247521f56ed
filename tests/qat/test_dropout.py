"""Dropout that can be saved: what it drops, and how often."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from tas_tf.qat.dropout import CountedDropout, has_dropout, take_weights, with_counted_dropout

SHAPE = (6, 5, 8)


def network(*dropouts: layers.Layer) -> tf_keras.Model:
    images = x = tf_keras.Input(SHAPE)
    for dropout in dropouts:
        x = dropout(x)
    return tf_keras.Model(images, x)


@pytest.mark.parametrize(
    ("dropout", "whole"),
    [
        (layers.Dropout(0.25), ()),
        (layers.SpatialDropout2D(0.25), (1, 2)),
        (layers.Dropout(0.25, noise_shape=(None, 1, 1, 1)), (1, 2, 3)),
    ],
    ids=["activations", "channels", "images"],
)
def test_the_share_of_what_is_dropped(dropout, whole):
    copy = with_counted_dropout(network(dropout), seed=3)
    outputs = copy(tf.ones((400, *SHAPE)), training=True).numpy()
    assert {0.0, np.float32(1 / 0.75)} == set(np.unique(outputs))
    first = outputs[tuple(slice(0, 1) if axis in whole else slice(None) for axis in range(4))]
    np.testing.assert_array_equal(np.broadcast_to(first, outputs.shape), outputs)  # together
    assert (first == 0).mean() == pytest.approx(0.25, abs=0.08)
    np.testing.assert_array_equal(copy(tf.ones((4, *SHAPE)), training=False), np.ones((4, *SHAPE)))


def test_masks_differ_by_call_layer_and_seed_and_come_again_with_the_count():
    ones = tf.ones((4, *SHAPE))

    def mask(one: tf_keras.Model, number: int) -> bytes:
        layer = one.layers[number]
        return layer(ones, training=True).numpy().tobytes()

    two = with_counted_dropout(network(layers.Dropout(0.5), layers.Dropout(0.5)), seed=0)
    other = with_counted_dropout(network(layers.Dropout(0.5)), seed=1)
    first = mask(two, 1)
    assert len({first, mask(two, 1), mask(two, 2), mask(other, 1)}) == 4
    again = with_counted_dropout(network(layers.Dropout(0.5), layers.Dropout(0.5)), seed=0)
    assert mask(again, 1) == first


def test_only_dropout_is_another_and_weights_go_there_and_back():
    given = network(layers.Conv2D(8, 3, padding="same", name="conv"), layers.Dropout(0.5, name="drop"))
    copy = with_counted_dropout(given, seed=0)
    assert has_dropout(given)
    assert not has_dropout(copy)
    assert isinstance(copy.get_layer("drop"), CountedDropout)
    for one, other in zip(copy.get_layer("conv").get_weights(), given.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    copy.get_layer("conv").bias.assign(np.arange(8.0))
    take_weights(given, copy)
    np.testing.assert_array_equal(given.get_layer("conv").bias, np.arange(8.0))
