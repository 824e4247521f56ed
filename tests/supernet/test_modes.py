"""Augmentation, dropout and resizing in a supernet: active in training alone, not when a shape is scored."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import build_supernet
from tas_tf.supernet.held_out import HeldOutScore
from tas_tf.supernet.sample import Sample
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.distill import Recalibration
from tests.networks import classify, conv_bn, draw_weights

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (8, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    x = images = keras.Input((12, 12, 3))
    x = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomZoom(0.2)])(x)
    x = layers.Rescaling(1 / 255)(layers.Resizing(8, 8)(x))
    x = layers.GaussianNoise(1.0)(conv_bn(x, 8))
    return SearchSpace.from_graph(Graph.from_model(keras.Model(images, classify(conv_bn(layers.Dropout(0.5)(x), 8)))))


@pytest.fixture(scope="module")
def supernet(space):
    result = build_supernet(space)
    draw_weights(result.body.weights, RNG)
    return result


def sample_of(space, shape) -> tuple:
    return tuple(tf.constant(array) for array in Sample.one_hot(space, shape).arrays(space))


def test_traced_without_a_mode_it_is_in_inference(space, supernet):
    sample = sample_of(space, Shape.full(space))
    traced = tf.function(lambda images: supernet(images, sample=sample))
    expected = supernet(tf.constant(IMAGES), sample=sample, training=False)
    np.testing.assert_allclose(traced(tf.constant(IMAGES)), expected, atol=1e-4 * np.abs(expected).max())


def test_in_training_images_change_from_step_to_step(space, supernet):
    sample = sample_of(space, Shape.full(space))
    one, other = (supernet(tf.constant(IMAGES), sample=sample, training=True).numpy() for _ in range(2))
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


def test_statistics_for_a_score_are_those_of_unchanged_images(space, supernet):
    """The student's, computed by Keras's own layers; random layers in between would make each pair differ."""
    shape = Shape.random(space, 1)
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(8, np.int64))).batch(4)
    HeldOutScore(supernet, space, batches, batches, Classification(space.graph.num_classes)).calibrate(
        sample_of(space, shape)
    )
    student = build_student(space, shape, logits=True)
    inherit_from_supernet(student, supernet, space, shape)
    norms = [layer for layer in student.layers if isinstance(layer, layers.BatchNormalization)]
    ours = [weight.numpy() for norm in norms for weight in norm.non_trainable_variables]
    Recalibration(student)(batches)
    theirs = [weight.numpy() for norm in norms for weight in norm.non_trainable_variables]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    found = supernet(tf.constant(IMAGES), sample=sample_of(space, shape), training=False)
    expected = student(IMAGES, training=False).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
