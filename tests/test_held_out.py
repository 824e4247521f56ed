"""The held-out score against the built student: sliced weights, statistics recalibrated by itself."""

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.distill import recalibrate
from tas_tf.held_out import HeldOutScore
from tas_tf.sample import Sample
from tas_tf.shape import Shape
from tas_tf.student import build_student
from tas_tf.training import evaluate
from tas_tf.transfer import inherit_from_supernet
from tests.digits import tiny_space, tiny_task
from tests.supernets import random_supernet


@pytest.fixture(scope="module")
def space():
    return tiny_space()


@pytest.fixture(scope="module")
def parts():
    """Images for the statistics, and other ones to score."""
    task = tiny_task()
    weights, architecture = task.halves()
    return task.plain(weights[:96], 32), task.plain(architecture, 64)


def scored(space, parts, shape: Shape, **options) -> tuple[HeldOutScore, float]:
    supernet = random_supernet(space, **options)
    score = HeldOutScore(supernet, space, *parts)
    return score, supernet, score(shape)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shape_scores_what_its_student_scores(space, parts, seed):
    shape = Shape.random(space, seed)
    calibration, held_out = parts
    untouched = random_supernet(space, seed=seed)
    student = build_student(space, shape, logits=True)
    inherit_from_supernet(student, untouched, space, shape)
    recalibrate(student, calibration)
    _, supernet, accuracy = scored(space, parts, shape, seed=seed)
    expected = evaluate(student, held_out)["accuracy"]
    assert accuracy == pytest.approx(expected, abs=1e-9)
    sample = tuple(tf.constant(array) for array in Sample.one_hot(space, shape).arrays(space))
    for images, _ in held_out:
        ours, theirs = supernet(images, sample=sample, training=False), student(images, training=False)
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_scoring_again_forgets_the_shape_before(space, parts):
    first, second = (Shape.random(space, seed) for seed in (3, 4))
    score, supernet, expected = scored(space, parts, first)
    statistics = [np.array(weight) for weight in supernet.body.non_trainable_variables]
    score(second)
    assert score(first) == expected
    for one, other in zip(statistics, supernet.body.non_trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_weights_and_logits_stay(space, parts):
    score, supernet, _ = scored(space, parts, Shape.full(space))
    before = [np.array(variable) for variable in supernet.trainable_variables]
    score(Shape.smallest(space))
    for one, other in zip(before, supernet.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_accuracy_counts_every_image_once(space, parts):
    """A last batch that is smaller weighs less."""
    _, supernet, accuracy = scored(space, parts, Shape.full(space))
    sample = tuple(tf.constant(array) for array in Sample.one_hot(space, Shape.full(space)).arrays(space))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[1].as_numpy_iterator(), strict=True))
    assert len(labels) % 64
    predicted = supernet(tf.constant(images), sample=sample, training=False).numpy().argmax(-1)
    assert accuracy == (predicted == labels).mean()
