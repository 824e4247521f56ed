"""Ranges of activations, against NumPy and the float network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.quantise import quantise
from tas_tf.qat.twin import make_twin
from tas_tf.zoo.loading import load_file
from tests.digits import tiny_network
from tests.networks import randomize


def _branches() -> keras.Model:
    """A convolution with a bias that makes all positive, and one with batch normalisation and ReLU."""
    images = keras.Input((4, 4, 2), name="images")
    biased = layers.Conv2D(3, 1, name="biased")(images)
    y = layers.Conv2D(3, 1, use_bias=False, strides=2, name="conv")(images)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name="norm")(y))
    pooled = [layers.GlobalAveragePooling2D()(part) for part in (biased, y)]
    return randomize(keras.Model(images, layers.Dense(4)(layers.Add()(pooled))))


def _exact(rng: np.random.Generator, shape: tuple[int, ...], limit: int) -> np.ndarray:
    """Numbers that rounding to 8 bits leaves as they are, the largest among them: 127ths of 1, or 255ths."""
    numbers = rng.integers(-limit if limit == 127 else 0, limit + 1, shape)
    numbers.reshape(-1, shape[-1])[0] = limit
    numbers.reshape(-1, shape[-1])[1] = 0
    return (numbers / limit).astype("float32")


def test_a_range_is_the_mean_over_batches():
    """Weights and images are such that rounding changes nothing up to the activations looked at."""
    rng = np.random.default_rng(0)
    twin = make_twin(_branches())
    kernels = {name: _exact(rng, (1, 1, 2, 3), 127) for name in ("biased", "conv")}
    bias = np.array([2.0, 3.0, 4.0], np.float32)
    twin.get_layer("biased").set_weights([kernels["biased"], bias])
    twin.get_layer("conv").set_weights([kernels["conv"]])
    gamma, beta = twin.get_layer("norm").get_weights()[:2]
    batches = [_exact(rng, (count, 4, 4, 2), 255) for count in (8, 8, 3)]

    biased, rectified = [], []
    for batch in batches:
        biased.append((batch @ kernels["biased"][0, 0] + bias).max())
        found = batch[:, ::2, ::2] @ kernels["conv"][0, 0]
        normal = (found - found.mean((0, 1, 2))) / np.sqrt(found.var((0, 1, 2)) + 1e-3)
        rectified.append(np.maximum(normal * gamma + beta, 0).max())
        assert (batch @ kernels["biased"][0, 0] + bias).min() > 0  # yet ranges include 0

    network = quantise(twin)
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=tf.TensorSpec((None, 4, 4, 2)))
    calibrate(network, dataset)
    ranges = {variable.name.split(":")[0]: variable.numpy() for variable in network.weights}
    assert ranges["quant_biased/post_activation_min"] == ranges["quant_relu/output_min"] == 0
    assert ranges["quant_biased/post_activation_max"] == pytest.approx(np.mean(biased), rel=1e-5)
    assert ranges["quant_relu/output_max"] == pytest.approx(np.mean(rectified), rel=1e-4)
    assert np.std(rectified) > 0.01  # so a last or a largest one would be something else
    np.testing.assert_allclose(ranges["quant_conv/kernel_max"], np.abs(kernels["conv"]).max((0, 1, 2)), rtol=1e-6)


def _digits(count: int, batch: int) -> tf.data.Dataset:
    task = Task.load("digits")
    return task.shuffled(task.indices, batch, count).map(lambda images, _: images)


def test_calibration_sets_ranges_alone():
    network = quantise(make_twin(randomize(tiny_network())))
    names = [variable.name for variable in network.weights]
    before = network.get_weights()
    calibrate(network, _digits(2, 32))
    for name, one, other in zip(names, before, network.get_weights(), strict=True):
        if name.endswith(("_min:0", "_max:0")):
            # Those of what is rectified stand at -6 first.
            assert not np.array_equal(one, other) or (name.startswith("quantize_layer") and not other.any()), name
        else:
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.slow
def test_a_calibration_that_fails_leaves_the_network_as_it_was():
    network = quantise(make_twin(randomize(tiny_network())))
    before = network.get_weights()

    def broken():
        yield from _digits(1, 8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        calibrate(network, broken())
    with pytest.raises(UserError, match="`images` must hold at least one batch"):
        calibrate(network, _digits(1, 8).take(0))
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_goes_on_from_the_calibrated_ranges_as_the_toolkit_does():
    """By a thousandth of the difference a step."""
    network = quantise(make_twin(_branches()))
    rng = np.random.default_rng(0)
    calibrate(network, tf.data.Dataset.from_tensors(rng.normal(size=(4, 4, 4, 2)).astype("float32")))
    highest = next(one for one in network.weights if one.name == "quant_relu/output_max:0")
    before = float(highest)
    network(np.zeros((4, 4, 4, 2), "float32"), training=True)
    twin_beta = next(one for one in network.weights if one.name.endswith("/beta:0")).numpy()
    expected = before + 0.001 * (max(twin_beta.max(), 0) - before)  # normalised zeros are the offsets
    assert float(highest) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_calibrated_scores_are_near_those_of_the_float_network(trained_tiny):
    twin = make_twin(load_file(trained_tiny))
    network = quantise(twin)
    images, labels = Task.load("digits").test_arrays()
    expected = twin(images).numpy()

    def agreement() -> float:
        return float((network(images, training=False).numpy().argmax(-1) == expected.argmax(-1)).mean())

    assert agreement() < 0.9  # the input's range is empty at first
    calibrate(network, _digits(10, 128))
    found = network(images, training=False).numpy()
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()
    assert agreement() > 0.97
    assert abs((found.argmax(-1) == labels).mean() - (expected.argmax(-1) == labels).mean()) < 0.02
