"""Normalises features and mixes their channels in one linear map, forward and backward.

All candidates of a unit share the statistics of each channel, so normalisation, the candidates' scales and offsets,
their interpolation and their weighted sum are one matrix: `z = ((y - mean) / deviation) A + offset`.
"""

from __future__ import annotations

import tensorflow as tf

from tas_tf.supernet.layers.statistics import sum_over_replicas


def normalise_and_mix(
    features: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor, *, epsilon: float, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies batch normalisation (no scale, no offset), then a matrix on the channels.

    The gradient needs no pass over the features but two matrix products and one fused multiply-add: the reductions
    that batch normalisation asks for are sums over the matrix's own gradient.

    Args:
        features: `y`, `[batch, ..., channels]`.
        matrix: `A`, `[channels, channels]`, float32.
        offset: `[channels]`, float32.
        epsilon: Added to the variance.
        synchronized: Shares statistics among replicas.

    Returns:
        `z` of the features' shape and type; mean and biased variance of the features, `[channels]`, float32,
        which pass no gradient on.
    """
    channels = features.shape[-1]

    @tf.custom_gradient
    def run(features, matrix, offset):
        flat = tf.reshape(features, [-1, channels])
        wide = tf.cast(flat, tf.float32)
        count = sum_over_replicas(tf.cast(tf.shape(flat)[0], tf.float32), synchronized)
        mean = sum_over_replicas(tf.reduce_sum(wide, 0), synchronized) / count
        squares = tf.reduce_sum(tf.math.squared_difference(wide, mean), 0)
        variance = sum_over_replicas(squares, synchronized) / count
        inverse = tf.math.rsqrt(variance + epsilon)
        scaled = inverse[:, None] * matrix
        left = mean  # what is still to be taken from the features
        if flat.dtype != tf.float32:
            # With so few digits it has to go before the product: two large numbers would cancel after it.
            wide, left = wide - mean, tf.zeros_like(mean)
            flat = tf.cast(wide, flat.dtype)
        shift = offset - tf.linalg.matvec(scaled, left, transpose_a=True)
        mixed = tf.nn.bias_add(tf.matmul(flat, tf.cast(scaled, flat.dtype)), tf.cast(shift, flat.dtype))

        def gradient(upstream, *_):
            flow = tf.reshape(upstream, [-1, channels])
            wide_flow = tf.cast(flow, tf.float32)
            d_offset = tf.reduce_sum(wide_flow, 0)
            products = tf.matmul(wide, wide_flow, transpose_a=True)
            d_matrix = inverse[:, None] * (products - left[:, None] * d_offset[None, :])
            all_offset = sum_over_replicas(d_offset, synchronized)
            all_matrix = sum_over_replicas(d_matrix, synchronized)
            # Means over the batch of d(normalised) and of d(normalised) * normalised.
            first = tf.linalg.matvec(matrix, all_offset) / count
            second = tf.reduce_sum(matrix * all_matrix, 1) / count
            slope = -tf.square(inverse) * second
            intercept = -inverse * first - left * slope
            back = tf.matmul(flow, tf.cast(scaled, flow.dtype), transpose_b=True)
            back = tf.nn.bias_add(back, tf.cast(intercept, flow.dtype)) + flat * tf.cast(slope, flow.dtype)
            return tf.reshape(back, tf.shape(features)), d_matrix, d_offset

        return (tf.reshape(mixed, tf.shape(features)), mean, variance), gradient

    return run(features, matrix, offset)


def statistics_through_kernel(
    inputs: tf.Tensor, kernel: tf.Tensor, *, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of a 1x1 convolution's outputs, from its inputs' mean and covariance alone.

    Saves making the outputs before they can be normalised; worth it where inputs are fewer than outputs.

    Args:
        inputs: `[batch, ..., inputs]`.
        kernel: `[inputs, outputs]`, float32.
        synchronized: Shares statistics among replicas.

    Returns:
        `[outputs]` each, float32; both pass gradients on.
    """
    flat = tf.cast(tf.reshape(inputs, [-1, inputs.shape[-1]]), tf.float32)
    count = sum_over_replicas(tf.cast(tf.shape(flat)[0], tf.float32), synchronized)
    mean = sum_over_replicas(tf.reduce_sum(flat, 0), synchronized) / count
    # Centred first, since mean squares minus squared means lose all digits where the mean is large. The covariance
    # doesn't change with what is subtracted to first order, so no gradient has to pass there.
    centred = flat - tf.stop_gradient(mean)
    covariance = sum_over_replicas(tf.matmul(centred, centred, transpose_a=True), synchronized) / count
    variance = tf.reduce_sum(kernel * (covariance @ kernel), 0)
    return tf.linalg.matvec(kernel, mean, transpose_a=True), tf.maximum(variance, 0.0)
