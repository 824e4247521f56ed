"""Distillation against NumPy, on one device and on two; statistics recalibrated."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.training.checkpoint import Saving
from tas_tf.training.distill import Recalibration, compile_network, distillation_loss, distiller
from tas_tf.training.loop import fit
from tas_tf.training.optimizers import sgd

BATCH, CLASSES = 16, 5
OBJECTIVE = Classification(CLASSES)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, 6)).astype(np.float32), rng.integers(0, CLASSES, BATCH)


def linear(seed: int, scale: float = 2.0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    features = keras.Input((6,))
    initializer = keras.initializers.RandomNormal(stddev=scale)
    return keras.Model(features, layers.Dense(CLASSES, kernel_initializer=initializer)(features))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits))


def numpy_losses(labels, ours, theirs, alpha: float, temperature: float) -> np.ndarray:
    """(1 - alpha) CE + alpha T^2 KL(teacher || student) of each example."""
    cross_entropy = -log_softmax(ours)[np.arange(len(labels)), labels]
    log_p, log_q = log_softmax(theirs / temperature), log_softmax(ours / temperature)
    return (1 - alpha) * cross_entropy + alpha * temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


def expected_loss(student, teacher, batch, alpha: float, temperature: float) -> float:
    images, labels = batch
    return numpy_losses(labels, student(images).numpy(), teacher(images).numpy(), alpha, temperature).mean()


def loss_and_gradient(labels, ours, theirs, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Losses and the gradient of their sum with respect to the student's logits."""
    logits = tf.constant(ours, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = distillation_loss(
            tf.constant(labels), logits, tf.constant(theirs, tf.float32), objective=OBJECTIVE, **settings
        )
    return losses.numpy(), tape.gradient(losses, logits).numpy()


def test_logits_far_apart_have_a_gradient():
    loss, gradient = loss_and_gradient([0], [[20.0, 0.0, 0.0]], [[0.0, 2.0, 0.0]], alpha=1.0, temperature=1.0)
    assert loss[0] == pytest.approx(17.20, abs=0.005)
    np.testing.assert_allclose(gradient, [[0.89, -0.79, -0.11]], atol=0.005)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
@pytest.mark.parametrize(("temperature", "scale"), [(4.0, 3.0), (1.0, 60.0), (0.5, 500.0)])
def test_losses_and_gradients_are_numpys(alpha, temperature, scale):
    rng = np.random.default_rng(4)
    ours, theirs = scale * rng.normal(size=(2, 7, CLASSES))
    ours, theirs = ours.astype(np.float32).astype(np.float64), theirs.astype(np.float32).astype(np.float64)
    labels = rng.integers(0, CLASSES, 7)
    losses, gradients = loss_and_gradient(labels, ours, theirs, alpha=alpha, temperature=temperature)
    np.testing.assert_allclose(losses, numpy_losses(labels, ours, theirs, alpha, temperature), rtol=1e-5, atol=1e-5)
    slopes = np.zeros_like(ours)
    for place in np.ndindex(*ours.shape):
        step = np.zeros_like(ours)
        step[place] = 1e-4
        above, below = (numpy_losses(labels, ours + sign * step, theirs, alpha, temperature) for sign in (1, -1))
        slopes[place] = (above - below).sum() / 2e-4
    np.testing.assert_allclose(gradients, slopes, rtol=1e-4, atol=1e-4)
    closed = (1 - alpha) * (softmax(ours) - np.eye(CLASSES)[labels])
    closed += alpha * temperature * (softmax(ours / temperature) - softmax(theirs / temperature))
    np.testing.assert_allclose(gradients, closed, rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_full():
    rng = np.random.default_rng(5)
    ours, theirs = tf.cast(rng.normal(size=(2, 7, CLASSES)), tf.bfloat16)
    losses = distillation_loss(tf.zeros(7, tf.int64), ours, theirs, objective=OBJECTIVE)
    assert losses.dtype == tf.float32
    ours, theirs = (tf.cast(part, tf.float32).numpy() for part in (ours, theirs))
    np.testing.assert_allclose(losses, numpy_losses(np.zeros(7, int), ours, theirs, 0.9, 4.0), rtol=1e-5)


def one_step(strategy, batch, alpha: float, temperature: float) -> tuple[float, np.ndarray, keras.Model]:
    """The loss of one step over the batch, the kernel after it, the teacher."""
    with strategy.scope():
        student, teacher = linear(1), linear(2)
        learner = distiller(
            student, teacher, sgd(0.1, momentum=0.0), alpha=alpha, temperature=temperature, objective=OBJECTIVE
        )
    dataset = tf.data.Dataset.from_tensors(batch).unbatch().batch(BATCH, drop_remainder=True).repeat()
    history = fit(learner, lambda epoch, step=0: dataset, strategy=strategy, epochs=1, steps_per_epoch=1, verbose=0)
    return history.history["loss"][0], np.array(student.weights[0]), teacher


@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 4.0), (0.3, 1.0), (0.0, 4.0), (1.0, 2.5)])
def test_the_loss_is_numpys(batch, alpha, temperature):
    loss, _, teacher = one_step(tf.distribute.get_strategy(), batch, alpha, temperature)
    assert loss == pytest.approx(expected_loss(linear(1), linear(2), batch, alpha, temperature), rel=1e-5)
    np.testing.assert_array_equal(teacher.weights[0], linear(2).weights[0])


def test_the_gradient_is_that_of_the_loss(batch):
    _, kernel, _ = one_step(tf.distribute.get_strategy(), batch, 0.9, 4.0)
    student, teacher = linear(1), linear(2)
    start, step = np.array(student.weights[0]), 1e-2
    for place in [(0, 0), (3, 2), (5, 4)]:
        losses = []
        for sign in (1, -1):
            shifted = start.copy()
            shifted[place] += sign * step
            student.weights[0].assign(shifted)
            losses.append(expected_loss(student, teacher, batch, 0.9, 4.0))
        slope = (losses[0] - losses[1]) / (2 * step)
        assert kernel[place] - start[place] == pytest.approx(-0.1 * slope, rel=1e-2, abs=1e-4)


def test_the_weight_falls_along_half_a_cosine_and_goes_on_after_a_resume(batch, tmp_path):
    dataset = tf.data.Dataset.from_tensors(batch).repeat()

    def losses(epochs: int, folder: Path | None) -> list[float]:
        # A rate of 0: only the weight changes.
        learner = distiller(linear(1), linear(2), sgd(0.0), alpha=0.8, alpha_end=0.2, steps=8, objective=OBJECTIVE)
        options = {"strategy": tf.distribute.get_strategy(), "steps_per_epoch": 2, "verbose": 0}
        saving = folder and Saving(folder)
        return fit(learner, lambda epoch, step=0: dataset, epochs=epochs, saving=saving, **options).history["loss"]

    weights = [0.2 + 0.6 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(8)]
    each = [expected_loss(linear(1), linear(2), batch, weight, 4.0) for weight in weights]
    expected = np.mean(np.reshape(each, (4, 2)), axis=1)
    np.testing.assert_allclose(losses(4, None), expected, rtol=1e-5)
    losses(2, tmp_path)
    np.testing.assert_allclose(losses(4, tmp_path), expected, rtol=1e-5)


def test_two_replicas_take_the_same_step(batch, two_replicas):
    loss, kernel, _ = one_step(tf.distribute.get_strategy(), batch, 0.9, 4.0)
    other_loss, other_kernel, _ = one_step(two_replicas, batch, 0.9, 4.0)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(other_kernel, kernel, atol=1e-5)


class TellsHowItRuns(layers.Layer):
    """Adds 100 to the first channel in training mode."""

    def call(self, inputs, training=None):
        return inputs + 100.0 * tf.one_hot(0, CLASSES) if training else inputs


def test_the_teacher_runs_in_inference_mode_and_is_neither_trained_nor_saved(batch):
    student, plain = linear(1), linear(2)
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, TellsHowItRuns()(keras.Sequential([plain, TellsHowItRuns()])(inputs)))
    learner = distiller(student, teacher, sgd(0.1), alpha=1.0, objective=OBJECTIVE)
    expected = expected_loss(student, plain, batch, 1.0, 4.0)
    assert learner.train_on_batch(*batch, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
    assert [id(variable) for variable in learner.trainable_variables] == [id(v) for v in student.trainable_variables]
    assert not {id(v) for v in learner.variables} & {id(v) for v in teacher.variables}
    np.testing.assert_array_equal(plain.weights[0], linear(2).weights[0])


def test_without_a_teacher_it_is_cross_entropy(batch):
    images, labels = batch
    student = linear(1)
    expected = -log_softmax(student(images).numpy())[np.arange(BATCH), labels].mean()
    logs = compile_network(student, sgd(0.1), OBJECTIVE).train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert set(logs) == {"loss", "accuracy"}


@pytest.mark.parametrize(("alpha", "temperature"), [(-0.1, 4.0), (1.1, 4.0), (0.9, 0.0), (0.9, float("nan"))])
def test_settings_that_make_no_sense(alpha, temperature):
    with pytest.raises(UserError, match=r"`(alpha|temperature)` must be"):
        distiller(linear(1), linear(2), sgd(0.1), alpha=alpha, temperature=temperature, objective=OBJECTIVE)


def test_recalibration_is_the_mean_over_batches():
    rng = np.random.default_rng(1)
    batches = [rng.normal(3, 2, size=(8, 4, 4, 3)).astype(np.float32) for _ in range(3)]
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, layers.GlobalAveragePooling2D()(layers.BatchNormalization(momentum=0.8)(images)))
    norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    norm.moving_mean.assign([100.0, -100.0, 7.0])
    Recalibration(model)(tf.data.Dataset.from_tensor_slices((np.stack(batches), np.zeros((3, 8)))))
    means = np.mean([part.mean((0, 1, 2)) for part in batches], axis=0)
    variances = np.mean([part.var((0, 1, 2)) for part in batches], axis=0)
    np.testing.assert_allclose(norm.moving_mean, means, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variances, rtol=1e-4)
    assert norm.momentum == 0.8


def test_recalibration_leaves_dropout_and_augmentation_out():
    images = np.random.default_rng(2).normal(size=(8, 4, 4, 3)).astype(np.float32)
    inputs = keras.Input((4, 4, 3))
    x = layers.Dropout(0.9)(layers.RandomBrightness(0.9)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="norm")(x)))
    Recalibration(model)(tf.data.Dataset.from_tensors((images, np.zeros(8))))
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, images.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(model.get_layer("norm").moving_variance, images.var((0, 1, 2)), rtol=1e-4)
