"""Running statistics: moved as configured, left alone, or averaged anew."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.supernet.layers.statistics import running_momentum, update_running


@pytest.fixture
def layer():
    layer = keras.layers.BatchNormalization(momentum=0.75)
    layer.build((None, 3))
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    return layer


MEAN, VARIANCE = tf.constant([5.0, 5.0, 5.0]), tf.constant([3.0, 3.0, 3.0])


def test_moves_by_the_layers_momentum(layer):
    update_running(layer, MEAN, VARIANCE)
    np.testing.assert_allclose(layer.moving_mean, [2.0, 2.75, 3.5])
    np.testing.assert_allclose(layer.moving_variance, [1.5, 1.5, 1.5])


def test_momentum_of_one_leaves_them_alone(layer):
    with running_momentum(1.0):
        update_running(layer, MEAN, VARIANCE)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, 2.0, 3.0])
    update_running(layer, MEAN, VARIANCE)  # and outside they move again
    np.testing.assert_allclose(layer.moving_mean, [2.0, 2.75, 3.5])


@pytest.mark.parametrize("as_tensor", [False, True])
def test_cumulative_momentum_gives_the_mean_over_batches(layer, as_tensor):
    batches = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    for number, batch in enumerate(batches):
        momentum = number / (number + 1)
        with running_momentum(tf.constant(momentum) if as_tensor else momentum):
            update_running(layer, tf.constant(batch), tf.constant(batch**2))
    np.testing.assert_allclose(layer.moving_mean, batches.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, (batches**2).mean(0), rtol=1e-5)


def test_nesting_and_failure_restore_what_was(layer):
    with running_momentum(1.0):
        with pytest.raises(RuntimeError), running_momentum(0.0):
            raise RuntimeError
        update_running(layer, MEAN, VARIANCE)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, 2.0, 3.0])


def test_other_threads_do_not_see_it(layer):
    with running_momentum(1.0):
        thread = threading.Thread(target=update_running, args=(layer, MEAN, VARIANCE))
        thread.start()
        thread.join()
    np.testing.assert_allclose(layer.moving_mean, [2.0, 2.75, 3.5])
