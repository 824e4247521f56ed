"""Normalises features and mixes their channels in one linear map, forward and backward.

All candidates of a unit share the statistics of each channel. Normalisation, the candidates' scales and offsets, their
interpolation and their weighted sum are therefore one linear map: `z = ((y - mean) / deviation) A + offset`.
"""

from __future__ import annotations

import tensorflow as tf

from tas_tf.supernet.layers.statistics import sum_over_replicas


def normalise_and_mix(
    features: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor, *, epsilon: float, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies batch normalisation (without scale and offset), then a matrix to the channels.

    The gradient passes over the features only in two matrix products and one fused multiply-add, because the reductions
    of batch normalisation are sums over the gradient of the matrix.

    Args:
        features: `y`, `[batch, ..., channels]`.
        matrix: `A`, `[channels, channels]`, float32.
        offset: `[channels]`, float32.
        epsilon: Added to the variance.
        synchronized: Whether replicas share statistics.

    Returns:
        `z`, with the features' shape and type, and the mean and biased variance of the features, `[channels]`, float32.
        Mean and variance have no gradient.
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
        left = mean  # mean that is still to be subtracted from the features
        if flat.dtype != tf.float32:
            # In half precision, subtract before the product: afterwards, two large numbers would cancel.
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
            # Batch means of d(normalised) and of d(normalised) * normalised.
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
    """Computes the mean and biased variance of a 1x1 convolution's outputs from its inputs' mean and covariance.

    The outputs themselves needn't be computed before normalisation. This is faster if there are fewer inputs than
    outputs.

    Args:
        inputs: `[batch, ..., inputs]`.
        kernel: `[inputs, outputs]`, float32.
        synchronized: Whether replicas share statistics.

    Returns:
        Mean and variance, `[outputs]` each, float32. Both are differentiable.
    """
    flat = tf.cast(tf.reshape(inputs, [-1, inputs.shape[-1]]), tf.float32)
    count = sum_over_replicas(tf.cast(tf.shape(flat)[0], tf.float32), synchronized)
    mean = sum_over_replicas(tf.reduce_sum(flat, 0), synchronized) / count
    # Centre first, because mean squares minus squared means lose all digits if the mean is large. To first order, the
    # covariance doesn't depend on the subtracted value, so it needs no gradient.
    centred = flat - tf.stop_gradient(mean)
    covariance = sum_over_replicas(tf.matmul(centred, centred, transpose_a=True), synchronized) / count
    variance = tf.reduce_sum(kernel * (covariance @ kernel), 0)
    return tf.linalg.matvec(kernel, mean, transpose_a=True), tf.maximum(variance, 0.0)
