"""Normalisation of tensors with inactive channels."""

from __future__ import annotations

import keras
import tensorflow as tf

from tas_tf.supernet.layers.statistics import sum_over_replicas, update_running, uses_batch_statistics

PACKAGE = "tas_tf"
_LEAST_FUSED_EPSILON = 1e-5  # the fused kernel raises smaller values to this one


class _OfActiveChannels(keras.layers.Layer):
    """A normalisation that is called with a mask of the active channels."""

    def build(self, inputs_shape, kept_shape=None):
        """Makes the weights of all channels."""
        super().build(inputs_shape)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MaskedBatchNormalization(_OfActiveChannels, keras.layers.BatchNormalization):
    """Batch normalisation that keeps inactive channels at zero.

    Call arguments:
        inputs: `[batch, ..., channels]`, with inactive channels zero.
        kept: 1 for active channels, else 0, `[channels]`. By default all channels are active.
    """

    def call(self, inputs, kept=None, training=None):
        """Normalises the inputs, by the batch's statistics in training."""
        channels = inputs.shape[-1]
        gamma = self.gamma if self.scale else tf.ones([channels])
        beta = self.beta if self.center else tf.zeros([channels])
        gamma, beta = tf.cast(gamma, tf.float32), tf.cast(beta, tf.float32)
        if kept is not None:
            kept = tf.cast(kept, tf.float32)
            gamma, beta = gamma * kept, beta * kept
        if not uses_batch_statistics(training):
            scale = gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
            offset = beta - self.moving_mean * scale
            return inputs * tf.cast(scale, inputs.dtype) + tf.cast(offset, inputs.dtype)
        if self.synchronized or self.epsilon < _LEAST_FUSED_EPSILON:
            return self._step_by_step(inputs, gamma, beta)
        # The fused kernel needs four axes, and reshaping is free. Positions stay out of the batch axis, because kernels
        # limit its size.
        flat = tf.reshape(inputs, [tf.shape(inputs)[0], -1, 1, channels])
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            flat, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        count = tf.cast(tf.size(flat) // channels, tf.float32)
        # The kernel returns the unbiased variance, but Keras averages the biased one.
        update_running(self, mean, variance * (count - 1.0) / count)
        return tf.reshape(outputs, tf.shape(inputs))

    def _step_by_step(self, inputs, gamma, beta):
        features = tf.cast(inputs, tf.float32)
        axes = list(range(len(inputs.shape) - 1))
        count = sum_over_replicas(tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32), self.synchronized)
        mean = sum_over_replicas(tf.reduce_sum(features, axes), self.synchronized) / count
        squares = tf.reduce_sum(tf.math.squared_difference(features, mean), axes)
        variance = sum_over_replicas(squares, self.synchronized) / count
        update_running(self, mean, variance)
        outputs = tf.nn.batch_normalization(features, mean, variance, beta, gamma, self.epsilon)
        return tf.cast(outputs, inputs.dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MaskedLayerNormalization(_OfActiveChannels, keras.layers.LayerNormalization):
    """Layer normalisation over the active channels only. Inactive channels stay zero.

    Call arguments:
        inputs: `[batch, ..., channels]`, with inactive channels zero.
        kept: 1 for active channels, else 0, `[channels]`.
    """

    def call(self, inputs, kept):
        """Normalises each position separately."""
        features, kept = tf.cast(inputs, tf.float32), tf.cast(kept, tf.float32)
        count = tf.reduce_sum(kept)
        mean = tf.reduce_sum(features, -1, keepdims=True) / count
        centred = (features - mean) * kept
        variance = tf.reduce_sum(tf.square(centred), -1, keepdims=True) / count
        # Keras's deprecated `rms_scaling` divides by the deviation without centring.
        outputs = (features if self.rms_scaling else centred) * tf.math.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            outputs *= tf.cast(self.gamma, tf.float32)
        if self.beta is not None:
            outputs += tf.cast(self.beta, tf.float32) * kept
        return tf.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MaskedRMSNormalization(_OfActiveChannels, keras.layers.RMSNormalization):
    """Division by the root mean square of the active channels. Inactive channels stay zero.

    Call arguments:
        inputs: `[batch, ..., channels]`, with inactive channels zero.
        kept: 1 for active channels, else 0, `[channels]`.
    """

    def call(self, inputs, kept):
        """Normalises each position separately."""
        features = tf.cast(inputs, tf.float32)
        square = tf.reduce_sum(tf.square(features), -1, keepdims=True) / tf.reduce_sum(tf.cast(kept, tf.float32))
        outputs = features * tf.math.rsqrt(square + self.epsilon) * tf.cast(self.scale, tf.float32)
        return tf.cast(outputs, self.compute_dtype)
