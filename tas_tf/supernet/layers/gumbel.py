"""Draws candidates from logits: Gumbel noise, sampling without replacement, and the gradients of both.

Reference:
    Jang et al. 2017, https://arxiv.org/abs/1611.01144; Kool et al. 2019 (top-k), https://arxiv.org/abs/1903.06059;
    Dong and Yang 2019, section 3.2, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import tensorflow as tf

_BITS = 23  # of a float32's mantissa, less the one that the half takes


def gumbel_noise(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draws from Gumbel(0, 1), float32.

    Args:
        shape: Shape wanted.
        seed: `[2]`, integers; equal seeds give equal noise on every replica, compiled or not.
    """
    # From bits, which XLA makes as all others do; its uniform floats are different ones.
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    fraction = tf.cast(tf.bitwise.bitwise_and(bits, 2**_BITS - 1), tf.float32)
    uniform = (fraction + 0.5) * 2.0**-_BITS  # exact, above 0 and below 1
    return -tf.math.log(-tf.math.log(uniform))


def perturb(logits: tf.Tensor, noise: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Gives `h = (log_softmax(logits) + noise) / temperature`; dh/dlogits is `(I - 1 softmax^T) / temperature`.

    Args:
        logits: `[choices, candidates]`, minus infinity where a choice has fewer candidates.
        noise: `[choices, candidates]`.
        temperature: Scalar.
    """
    there = tf.math.is_finite(logits)
    # A finite stand-in keeps infinities out of the gradient, where they would meet zeros.
    log_probabilities = tf.nn.log_softmax(tf.where(there, logits, tf.fill(tf.shape(logits), -1e9)))
    perturbed = (log_probabilities + noise) / temperature
    return tf.where(there, perturbed, tf.fill(tf.shape(logits), tf.float32.min))


def draw_candidates(perturbed: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws distinct candidates with probabilities `softmax(perturbed)`, without replacement.

    They are the top `count` after *fresh* Gumbel noise, which is exact and doesn't underflow at small temperatures.

    Args:
        perturbed: `[choices, candidates]`, the lowest float where there is no candidate.
        count: Candidates to draw, at most the last axis.
        seed: `[2]`, integers.

    Returns:
        Indices, `[choices, count]`, int32. A choice with fewer candidates is filled up with absent ones.
    """
    scores = tf.stop_gradient(perturbed) + gumbel_noise(tuple(perturbed.shape), seed)
    return tf.math.top_k(scores, k=count).indices


@tf.custom_gradient
def mixture_weights(perturbed: tf.Tensor, drawn: tf.Tensor):
    """Weighs the drawn candidates by a softmax over them.

    One candidate alone weighs 1, which has no gradient: it gets the straight-through one, as if the weight were its
    probability among all candidates.

    Args:
        perturbed: `h`, `[choices, candidates]`, float32.
        drawn: Indices, `[choices, count]`.

    Returns:
        `[choices, count]`; exactly 0 for absent candidates.
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
