"""Draws candidates from logits: Gumbel noise, sampling without replacement, and the gradients of both.

Reference:
    Jang et al. 2017, https://arxiv.org/abs/1611.01144; Kool et al. 2019 (top-k), https://arxiv.org/abs/1903.06059;
    Dong and Yang 2019, section 3.2, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import tensorflow as tf

_BITS = 23  # random bits per number; the added half takes the last bit of float32's 24-bit precision


def gumbel_noise(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draws from Gumbel(0, 1), float32.

    Args:
        shape: Shape of the result.
        seed: Integer seed, `[2]`. Equal seeds give equal noise on every replica, with or without XLA.
    """
    # XLA generates the same random bits as other devices, but different uniform floats.
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    fraction = tf.cast(tf.bitwise.bitwise_and(bits, 2**_BITS - 1), tf.float32)
    uniform = (fraction + 0.5) * 2.0**-_BITS  # exact, above 0 and below 1
    return -tf.math.log(-tf.math.log(uniform))


def perturb(logits: tf.Tensor, noise: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Computes `h = (log_softmax(logits) + noise) / temperature`; dh/dlogits is `(I - 1 softmax^T) / temperature`.

    Args:
        logits: `[choices, candidates]`, padded with minus infinity.
        noise: `[choices, candidates]`.
        temperature: Scalar.
    """
    there = tf.math.is_finite(logits)
    # The finite value avoids products of infinity and zero in the gradient.
    log_probabilities = tf.nn.log_softmax(tf.where(there, logits, tf.fill(tf.shape(logits), -1e9)))
    perturbed = (log_probabilities + noise) / temperature
    return tf.where(there, perturbed, tf.fill(tf.shape(logits), tf.float32.min))


def draw_candidates(perturbed: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws distinct candidates with probabilities `softmax(perturbed)`, without replacement.

    The draws are the top `count` scores after adding *fresh* Gumbel noise. This is exact and doesn't underflow at small
    temperatures.

    Args:
        perturbed: `[choices, candidates]`, padded with the lowest float.
        count: Number of candidates to draw, at most the size of the last axis.
        seed: Integer seed, `[2]`.

    Returns:
        Indices, `[choices, count]`, int32. If a choice has fewer candidates, the rest are indices of padding.
    """
    scores = tf.stop_gradient(perturbed) + gumbel_noise(tuple(perturbed.shape), seed)
    return tf.math.top_k(scores, k=count).indices


@tf.custom_gradient
def mixture_weights(perturbed: tf.Tensor, drawn: tf.Tensor):
    """Weights the drawn candidates by a softmax over their scores.

    The weight of a single drawn candidate is always 1 and has no gradient. It gets the straight-through gradient, as if
    the weight were its probability among all candidates.

    Args:
        perturbed: `h`, `[choices, candidates]`, float32.
        drawn: Indices of the drawn candidates, `[choices, count]`.

    Returns:
        Weights, `[choices, count]`, exactly 0 for padding.
    """
    scores = tf.gather(perturbed, drawn, batch_dims=1)
    weights = tf.nn.softmax(scores)
    num_candidates = perturbed.shape[-1]

    def gradient(upstream: tf.Tensor):
        spread = tf.one_hot(drawn, num_candidates, dtype=upstream.dtype)  # [choices, count, candidates]
        if drawn.shape[-1] == 1:
            probabilities = tf.nn.softmax(perturbed)
            at_drawn = tf.einsum("ck,ckn->cn", upstream, spread)
            return probabilities * (at_drawn - tf.reduce_sum(probabilities * at_drawn, -1, keepdims=True)), None
        centred = weights * (upstream - tf.reduce_sum(weights * upstream, -1, keepdims=True))
        return tf.einsum("ck,ckn->cn", centred, spread), None

    return weights, gradient
