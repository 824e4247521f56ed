"""Students equal their supernet, and cost what the model says, whatever is done to channels between convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.space.shape import Shape
from tas_tf.supernet.sample import Sample
from tests.channel_networks import NETWORKS, make_network
from tests.networks import count_macs
from tests.parts import slow_except
from tests.supernets import Comparison, apply_supernet, space_of

#: Networks that differ from another one in a detail.
VARIANTS = {
    *("shortcut with zeros behind", "shared with what is outside", "shared transposed convolution"),
    *("shared grouped convolution", "shared group normalisation", "only the second output", "halves"),
    *("split into positions", "slice of positions", "one row", "cropped and padded images", "instance normalisation"),
    *("group normalisation of a concatenation", "group normalisation of multiplied channels"),
    *("blocks divided by root mean squares", "root mean square of a concatenation", "reciprocal", "mean of all"),
}


@pytest.mark.parametrize("name", slow_except(NETWORKS, NETWORKS.keys() - VARIANTS))
def test_supernets_are_their_students(name):
    space = space_of(make_network(name))
    assert len(space.searched_units) == NETWORKS[name][1], space.frozen
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
    comparison = Comparison(space, images, seed=3)
    for shape in (Shape.smallest(space), Shape.random(space, 1)):
        student = comparison.student(shape)
        assert CostModel(space)(shape) == count_macs(student)
        assert CostModel(space, "params")(shape) == student.count_params()
        comparison.check(shape, student)
    assert_finite_gradients(comparison, Sample.one_hot(space, Shape.smallest(space)))


def assert_finite_gradients(comparison, sample):
    """Where channels are inactive, some operations have no finite slope at zero."""
    variables = comparison.supernet.trainable_variables
    with tf.GradientTape() as tape:
        logits = apply_supernet(comparison.supernet, comparison.space, comparison.images, sample, training=True)
        loss = tf.reduce_sum(logits**2)
    found = [slope for slope in tape.gradient(loss, variables) if slope is not None]
    assert found
    assert all(np.isfinite(tf.convert_to_tensor(slope)).all() for slope in found)


def test_students_are_saved_with_their_shared_layers(tmp_path):
    space = space_of(make_network("shared MLP"))
    student = Comparison(space, np.ones((1, 6, 6, 3), "float32")).student(Shape.smallest(space))
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == student.count_params()
    again = space_of(loaded)
    assert CostModel(again).full == CostModel(space)(Shape.smallest(space))
    assert len(again.graph.repeats) == 2
