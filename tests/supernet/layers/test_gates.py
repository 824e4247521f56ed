"""The layer that holds the logits: what it draws, for whom alike, and what reaches the logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.supernet.layers.gates import ArchitectureGates
from tests.supernets import freeze

UNITS = ({"name": "wide", "candidates": [2, 3, 5, 8]}, {"name": "narrow", "candidates": [1, 2]})
STAGES = ({"name": "stage_1", "depths": [1, 2, 3]},)


def make(**options):
    return ArchitectureGates(UNITS, STAGES, **options)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def draw(gates, step):
    return [tensor.numpy() for tensor in gates(tf.constant(step))]


def assert_all_equal(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_equal_seeds_and_steps_draw_alike():
    first, second = make(seed=3), make(seed=3)
    assert_all_equal(first.get_weights(), second.get_weights())
    assert_all_equal(draw(first, 7), draw(second, 7))
    for compile_by_xla in (False, True):
        compiled = tf.function(first, jit_compile=compile_by_xla)(tf.constant(7))
        for tensor, eager in zip(compiled, draw(first, 7), strict=True):
            np.testing.assert_allclose(tensor, eager, rtol=1e-4)


def test_steps_and_seeds_draw_differently():
    gates, other = make(seed=3), make(seed=4)
    other.set_weights(gates.get_weights())
    for one, another in ((draw(gates, 0), draw(gates, 1)), (draw(gates, 0), draw(other, 0))):
        assert not np.array_equal(one[1], another[1])
        assert not np.array_equal(one[2], another[2])


def test_replicas_draw_alike(two_replicas):
    with two_replicas.scope():
        gates = make(seed=5)
    drawn = tf.function(lambda: two_replicas.run(gates, (tf.constant(11),)))()
    for tensor, alone in zip(drawn, draw(make(seed=5), 11), strict=True):
        first, second = two_replicas.experimental_local_results(tensor)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, alone)


def test_logits_start_small_and_differ():
    gates = ArchitectureGates([{"name": f"unit_{n}", "candidates": list(range(1, 9))} for n in range(60)], [])
    logits = np.stack([np.array(variable) for variable in gates.width_logits])
    assert logits.std() == pytest.approx(0.01, rel=0.15)
    assert abs(logits.mean()) < 0.002
    assert len(np.unique(logits)) == logits.size


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_without_noise_draws_follow_the_probabilities(temperature):
    gates = make(noise=False)
    gates.temperature.assign(temperature)
    gates.logits_of("wide").assign([0.5, -0.5, 0.2, 1.0])
    num_draws = 4000
    indices, weights, depths = tf.function(lambda: tf.vectorized_map(gates, tf.range(num_draws)))()
    p = softmax(np.log(softmax(np.array([0.5, -0.5, 0.2, 1.0]))) / temperature)
    first = np.bincount(indices.numpy()[:, 0, 0], minlength=4) / num_draws
    sigma = np.sqrt(p * (1 - p) / num_draws)
    np.testing.assert_array_less(np.abs(first - p), 4 * sigma)
    # The second without the first.
    pairs = np.array([[p[i] * p[j] / (1 - p[i]) * (i != j) for j in range(4)] for i in range(4)])
    second = np.bincount(indices.numpy()[:, 0, 1], minlength=4) / num_draws
    wanted = pairs.sum(0)
    np.testing.assert_array_less(np.abs(second - wanted), 4 * np.sqrt(wanted * (1 - wanted) / num_draws))
    drawn = p[indices.numpy()[:, 0]]
    np.testing.assert_allclose(weights.numpy()[:, 0], drawn / drawn.sum(1, keepdims=True), rtol=1e-4)
    wanted = softmax(np.log(softmax(np.array(gates.logits_of("stage_1")))) / temperature)
    np.testing.assert_allclose(depths.numpy(), np.tile(wanted, (num_draws, 1, 1)), rtol=1e-4)


@pytest.mark.parametrize("num_drawn", [1, 2, 3, 9])
def test_shapes_and_absent_candidates(num_drawn):
    gates = make(num_drawn=num_drawn)
    gates.temperature.assign(0.3)
    count = min(num_drawn, 4)
    for step in range(20):
        indices, weights, depths = draw(gates, step)
        assert indices.shape == weights.shape == (2, count)
        assert indices.dtype == np.int32
        assert depths.shape == (1, 3)
        np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(depths.sum(1), 1.0, rtol=1e-5)
        present = weights[1] > 0
        assert present.sum() <= min(2, count)
        assert (indices[1] < 2).all()
        assert len(set(indices[0][weights[0] > 0])) == (weights[0] > 0).sum()
    assert [spec.shape for spec in gates.compute_output_spec(None)] == [(2, count), (2, count), (1, 3)]


def test_gradients_reach_all_logits_and_are_finite_at_the_extremes():
    gates = make(num_drawn=3)
    gates.temperature.assign(0.1)
    gates.logits_of("wide").assign([20.0, -20.0, 19.5, -20.0])
    gates.logits_of("narrow").assign([-20.0, 20.0])
    gates.logits_of("stage_1").assign([20.0, -20.0, 20.0])
    for step in range(10):
        with tf.GradientTape() as tape:
            _, weights, depths = gates(tf.constant(step))
            loss = tf.reduce_sum(weights * [0.3, -1.0, 2.0]) + tf.reduce_sum(depths * [1.0, 2.0, -1.0])
        gradients = tape.gradient(loss, [variable.value for variable in gates.trainable_variables])
        assert len(gradients) == 3
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_probabilities_have_neither_noise_nor_temperature():
    gates = make()
    gates.logits_of("narrow").assign([1.0, 3.0])
    widths, depths = gates.probabilities()
    np.testing.assert_allclose(widths[1], [*softmax(np.array([1.0, 3.0])), 0, 0], rtol=1e-5)
    np.testing.assert_allclose(widths[0], softmax(np.array(gates.logits_of("wide"))), rtol=1e-5)
    np.testing.assert_allclose(depths[0], softmax(np.array(gates.logits_of("stage_1"))), rtol=1e-5)


def test_logits_are_frozen_one_by_one():
    gates = make()
    freeze(gates, ["narrow", "stage_1"])
    assert [variable.name for variable in gates.trainable_variables] == ["wide_logits"]
    with pytest.raises(KeyError):
        freeze(gates, ["unheard_of"])


def test_without_units_or_stages():
    only_depths = ArchitectureGates([], STAGES)
    indices, weights, depths = draw(only_depths, 0)
    assert indices.shape == (1, 1)
    np.testing.assert_array_equal(weights, [[1.0]])
    assert depths.shape == (1, 3)
    only_widths = ArchitectureGates(UNITS, [])
    assert draw(only_widths, 0)[2].tolist() == [[1.0]]


def test_config_round_trip():
    gates = make(num_drawn=3, noise=False, seed=9, init_stddev=0.5)
    copy = ArchitectureGates.from_config(gates.get_config())
    assert_all_equal(copy.get_weights(), gates.get_weights())
    assert_all_equal(draw(copy, 2), draw(gates, 2))


def test_logits_stay_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        gates = make()
        assert {tensor.dtype.name for tensor in gates(tf.constant(0))} == {"int32", "float32"}
        assert {variable.dtype for variable in gates.weights} == {"float32"}
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_nothing_drawn_is_refused():
    with pytest.raises(UserError, match="num_drawn"):
        make(num_drawn=0)
