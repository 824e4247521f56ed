"""Draws without replacement and their gradients, against enumeration and finite differences in NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tas_tf.supernet.layers.gumbel import draw_candidates, gumbel_noise, mixture_weights, perturb

ABSENT = -np.inf


def softmax(x):
    shifted = np.exp(x - np.max(x, -1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def log_softmax(x):
    return x - np.max(x) - np.log(np.exp(x - np.max(x)).sum())


def without_replacement(probabilities, count):
    """Exact probability of every ordered draw."""
    found = {}
    for order in itertools.permutations(range(len(probabilities)), count):
        chance, left = 1.0, 1.0
        for index in order:
            chance *= probabilities[index] / left
            left -= probabilities[index]
        found[order] = chance
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("h", [[0.0, 0.0, 0.0, 0.0], [1.0, -0.5, 0.3, 2.0, -1.5]])
def test_frequencies_match_sampling_without_replacement(h, count):
    num_draws = 10_000
    rows = tf.tile(tf.constant([h], tf.float32), [num_draws, 1])
    drawn = [tuple(row) for row in draw_candidates(rows, count, tf.constant([3, 4])).numpy()]
    exact = without_replacement(softmax(np.array(h)), count)
    observed = np.array([drawn.count(order) for order in exact])
    assert observed.sum() == num_draws
    assert stats.chisquare(observed, num_draws * np.array(list(exact.values()))).pvalue > 1e-3


def test_noise_is_gumbel():
    noise = gumbel_noise((200, 100), tf.constant([1, 2])).numpy().ravel()
    assert noise.dtype == np.float32
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-3


def test_draws_do_not_underflow_at_small_temperatures():
    # Probabilities of the last two are 1e-87 and 1e-173: zero in float32, yet they have an order.
    h = tf.tile(tf.constant([[0.0, -200.0, -400.0]]), [500, 1])
    drawn = draw_candidates(h, 2, tf.constant([0, 0])).numpy()
    np.testing.assert_array_equal(drawn, np.tile([0, 1], (500, 1)))


def loss_of_logits(logits, noise, temperature, drawn, upstream):
    """The loss that the gradient belongs to, in float64: upstream times the weights of one choice."""
    h = (log_softmax(logits) + noise) / temperature
    return np.dot(upstream, softmax(h[drawn]))


def gradient_of_logits(logits, noise, temperature, drawn, upstream):
    tensors = [tf.constant(value[None], tf.float32) for value in (logits, noise, upstream)]
    variable, noise, upstream = tf.Variable(tensors[0]), *tensors[1:]
    with tf.GradientTape() as tape:
        weights = mixture_weights(perturb(variable, noise, tf.constant(temperature)), tf.constant([drawn]))
        loss = tf.reduce_sum(weights * upstream)
    return weights.numpy()[0], tape.gradient(loss, variable).numpy()[0]


@pytest.mark.parametrize(("drawn", "temperature"), [([2, 0], 1.0), ([3, 1, 4], 5.0), ([0, 1, 2, 3, 4], 0.7)])
def test_gradient_of_several_matches_finite_differences(drawn, temperature):
    rng = np.random.default_rng(0)
    logits, noise, upstream = rng.normal(size=5), rng.gumbel(size=5), rng.normal(size=len(drawn))
    weights, gradient = gradient_of_logits(logits, noise, temperature, drawn, upstream)
    np.testing.assert_allclose(weights, softmax(((log_softmax(logits) + noise) / temperature)[drawn]), rtol=1e-5)
    steps = 1e-5 * np.eye(5)
    wanted = [
        (
            loss_of_logits(logits + step, noise, temperature, drawn, upstream)
            - loss_of_logits(logits - step, noise, temperature, drawn, upstream)
        )
        / 2e-5
        for step in steps
    ]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_gradient_of_h_matches_the_formula():
    h, upstream, drawn = np.array([0.4, -1.0, 2.0, 0.1]), np.array([1.5, -0.5]), [2, 0]
    w = softmax(h[drawn])
    wanted = np.zeros(4)
    wanted[drawn] = w * (upstream - np.dot(w, upstream))
    variable = tf.Variable([h], dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(mixture_weights(variable, tf.constant([drawn])) * upstream.astype(np.float32))
    np.testing.assert_allclose(tape.gradient(loss, variable).numpy()[0], wanted, rtol=1e-5, atol=1e-7)


def test_gradient_of_one_is_straight_through():
    rng = np.random.default_rng(1)
    logits, noise, upstream, temperature = rng.normal(size=4), rng.gumbel(size=4), np.array([1.7]), 0.8
    weights, gradient = gradient_of_logits(logits, noise, temperature, [2], upstream)
    assert weights == 1.0
    p = softmax((log_softmax(logits) + noise) / temperature)
    at_drawn = np.array([0, 0, upstream[0], 0])
    of_h = p * (at_drawn - np.dot(p, at_drawn))
    jacobian = (np.eye(4) - np.outer(np.ones(4), softmax(logits))) / temperature
    np.testing.assert_allclose(gradient, jacobian.T @ of_h, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("drawn", [[0], [0, 1], [1, 2], [3, 2, 1, 0]])
def test_gradients_are_finite_at_the_extremes(drawn):
    logits, noise = np.array([20.0, -20.0, 20.0, -20.0]), np.array([3.0, -4.0, 0.5, 12.0])
    weights, gradient = gradient_of_logits(logits, noise, 0.1, drawn, np.linspace(-1, 1, len(drawn)) + 0.1)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1.0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("temperature", [5.0, 0.1])
def test_absent_candidates_get_neither_weight_nor_gradient(temperature):
    logits = tf.Variable([[0.3, -0.2, ABSENT, ABSENT], [1.0, 2.0, 3.0, 4.0]])
    noise = gumbel_noise((2, 4), tf.constant([5, 6]))
    with tf.GradientTape() as tape:
        h = perturb(logits, noise, tf.constant(temperature))
        drawn = draw_candidates(h, 3, tf.constant([7, 8]))
        weights = mixture_weights(h, drawn)
        loss = tf.reduce_sum(weights * [[0.1, 1.0, -0.5]])
    gradient = tape.gradient(loss, logits).numpy()
    assert set(drawn.numpy()[0, :2]) == {0, 1}
    assert weights.numpy()[0, 2] == 0.0
    np.testing.assert_allclose(weights.numpy().sum(1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(gradient[0, 2:], 0.0)
    assert np.isfinite(gradient).all()
    # With two candidates only, their weights are the softmax over both.
    np.testing.assert_allclose(weights.numpy()[0, :2], softmax(h.numpy()[0, drawn.numpy()[0, :2]]), rtol=1e-5)
