"""The held-out score against the built student: sliced weights, statistics recalibrated by itself."""

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tas_tf.supernet.held_out import HeldOutScore
from tas_tf.supernet.sample import Sample
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.distill import Recalibration
from tas_tf.training.evaluation import evaluate
from tests.digits import CLASSES, tiny_space, tiny_task
from tests.supernets import random_supernet


@pytest.fixture(scope="module")
def space():
    return tiny_space()


@pytest.fixture(scope="module")
def parts():
    """Images for the statistics, and other ones to score."""
    task = tiny_task()
    weights, architecture = task.halves()
    return task.plain(weights[:96]).rebatch(32), task.plain(architecture).rebatch(64)


@pytest.fixture(scope="module")
def supernet(space):
    return random_supernet(space)


@pytest.fixture(scope="module")
def score(supernet, space, parts) -> HeldOutScore:
    return HeldOutScore(supernet, space, *parts, CLASSES)


def one_hot(space, shape: Shape) -> tuple[tf.Tensor, ...]:
    return tuple(tf.constant(array) for array in Sample.one_hot(space, shape).arrays(space))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shape_scores_what_its_student_scores(space, parts, supernet, score, seed):
    shape = Shape.random(space, seed)
    calibration, held_out = parts
    student = build_student(space, shape, logits=True)
    inherit_from_supernet(student, supernet, space, shape)
    Recalibration(student)(calibration)
    accuracy = score(shape)
    assert accuracy == pytest.approx(evaluate(student, held_out, CLASSES)["accuracy"], abs=1e-9)
    for images, _ in held_out:
        ours = supernet(images, sample=one_hot(space, shape), training=False)
        theirs = student(images, training=False)
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_scoring_forgets_the_shape_before_and_leaves_weights_and_logits_alone(space, supernet, score):
    first, second = (Shape.random(space, seed) for seed in (3, 4))
    trained = [np.array(variable) for variable in supernet.trainable_variables]
    expected = score(first)
    statistics = [np.array(weight) for weight in supernet.body.non_trainable_variables]
    score(second)
    assert score(first) == expected
    for one, other in zip(statistics, supernet.body.non_trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    for one, other in zip(trained, supernet.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_accuracy_counts_every_image_once(space, parts, supernet, score):
    """A last batch that is smaller weighs less."""
    accuracy = score(Shape.full(space))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[1].as_numpy_iterator(), strict=True))
    assert len(labels) % 64
    logits = supernet(tf.constant(images), sample=one_hot(space, Shape.full(space)), training=False)
    assert accuracy == (logits.numpy().argmax(-1) == labels).mean()
