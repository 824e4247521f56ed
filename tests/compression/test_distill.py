"""Distillation alone."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.compression.distill import distill
from tas_tf.errors import UserError
from tas_tf.training.settings import TrainSettings

SETTINGS = TrainSettings(epochs=6, warmup_epochs=0, batch_size=20, lr=0.05)


def perceptron(activation: str | None = "softmax", sides: int = 8) -> keras.Model:
    """A classifier in which nothing can be searched."""
    images = keras.Input((sides, sides, 1))
    return keras.Model(images, layers.Dense(10, activation=activation)(layers.Flatten()(images)))


def test_any_classifier_learns_what_the_teacher_says(model, arrays):
    """The labels are wrong; only the teacher knows better."""
    keras.utils.set_random_seed(0)
    student = perceptron()
    before = [np.array(weight) for weight in student.get_weights()]
    (images, labels), (others, answers) = arrays
    wrong = (labels + 1) % 10
    settings = replace(SETTINGS, alpha=1.0)
    trained = distill(student, model, (images, wrong), (others, answers), settings=settings, verbose=0)
    outputs = np.asarray(trained.model(others))
    np.testing.assert_allclose(outputs.sum(1), 1.0, atol=1e-5)
    hits = outputs.argmax(1) == answers
    assert trained.metrics["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
    assert hits.mean() > 0.6
    for weight, kept in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_it_starts_from_the_students_weights_and_needs_no_validation(model, arrays):
    still = replace(SETTINGS, epochs=1, lr=1e-8, l2=0.0)
    student = perceptron(activation=None)
    trained = distill(student, model, arrays[0], settings=still, verbose=0)
    np.testing.assert_allclose(np.asarray(trained.model(arrays[1][0])), np.asarray(student(arrays[1][0])), atol=1e-3)
    assert "accuracy" not in trained.metrics
    assert trained.metrics["params"] == student.count_params()


def test_a_teacher_of_other_images_is_refused(model, arrays):
    with pytest.raises(
        UserError, match=r"`teacher` must take .* images of 9x9x1 to outputs of 10\. Received: images of 8x8x1"
    ):
        distill(perceptron(sides=9), model, arrays[0])
