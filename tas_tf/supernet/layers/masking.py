"""Keeps inactive channels at zero, and mixes the depths of a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tas_tf.supernet.layers.normalization import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class KeptChannels(keras.layers.Layer):
    """Makes the mask of a tensor's channels: 1 for active channels, else 0.

    Call arguments:
        active: Number of active channels of every source, `[sources]`, int32.

    Returns:
        `[channels]`, float32.

    Args:
        segments: For each segment, the index of its source (None: always active) and its full width; also the full
            width of the source if it differs.
    """

    def __init__(self, segments: Sequence[tuple[int | None, int] | tuple[int, int, int]], **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.segments = [tuple(segment) for segment in segments]

    def build(self, active_shape):
        """Makes no weights."""
        self.built = True

    def call(self, active):
        """Makes the mask."""
        # Flattened tensors repeat the same few segments at every position, so make each mask once.
        made = {segment: _mask(active, *segment) for segment in dict.fromkeys(self.segments)}
        return tf.concat([made[segment] for segment in self.segments], axis=0)

    def compute_output_shape(self, active_shape):
        """Returns the shape of the mask."""
        return (sum(width for _, width, *_ in self.segments),)

    def get_config(self):
        """Returns the constructor arguments."""
        return {**super().get_config(), "segments": self.segments}


def _mask(active: tf.Tensor, source: int | None, width: int, source_width: int | None = None) -> tf.Tensor:
    if source is None:
        return tf.ones([width])
    kept = active[source] if source_width is None else active[source] * width // source_width
    return tf.cast(tf.range(width) < kept, tf.float32)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MaskChannels(keras.layers.Layer):
    """Sets inactive channels to zero.

    Call arguments:
        inputs: `[batch, ..., channels]`.
        kept: 1 for active channels, else 0, `[channels]`.
    """

    def build(self, inputs_shape, kept_shape):
        """Makes no weights."""
        self.built = True

    def call(self, inputs, kept):
        """Masks the inputs."""
        return inputs * tf.cast(kept, inputs.dtype)

    def compute_output_shape(self, inputs_shape, kept_shape):
        """Returns the inputs' shape."""
        return inputs_shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class FillChannels(keras.layers.Layer):
    """Sets inactive channels to a value that the next operation is regular at, or that doesn't change its result.

    Call arguments:
        inputs: `[batch, ..., channels]`.
        kept: 1 for active channels, else 0, `[channels]`.

    Args:
        value: The value, which may be infinite.
    """

    def __init__(self, value: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.value = value

    def build(self, inputs_shape, kept_shape):
        """Makes no weights."""
        self.built = True

    def call(self, inputs, kept):
        """Fills the inactive channels."""
        return tf.where(kept > 0, inputs, tf.cast(self.value, inputs.dtype))

    def compute_output_shape(self, inputs_shape, kept_shape):
        """Returns the inputs' shape."""
        return inputs_shape

    def get_config(self):
        """Returns the constructor arguments."""
        return {**super().get_config(), "value": self.value}


@keras.saving.register_keras_serializable(package=PACKAGE)
class MeanOfKept(keras.layers.Layer):
    """Turns means over all channels, where inactive ones are zero, into means over the active channels.

    Call arguments:
        means: Any shape.
        kept: 1 for active channels, else 0, `[channels]`.
    """

    def build(self, means_shape, kept_shape):
        """Makes no weights."""
        self.built = True

    def call(self, means, kept):
        """Scales the means."""
        return means * tf.cast(kept.shape[0] / tf.reduce_sum(kept), means.dtype)

    def compute_output_shape(self, means_shape, kept_shape):
        """Returns the means' shape."""
        return means_shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class DepthMix(keras.layers.Layer):
    """Sums the outputs of a stage's blocks, weighted by the weights of their depths and widened to the widest output.

    Call arguments:
        ends: Outputs of the blocks that the depth candidates end in, `[batch, ..., channels]` each.
        mixing: Weights `[depths]`. If the blocks differ in width, also matrices `[depths, channels, channels]`, which
            include the weights.
    """

    def build(self, ends_shape, mixing_shape):
        """Makes no weights."""
        self.built = True

    def call(self, ends, mixing):
        """Mixes the outputs."""
        if len(mixing) == 1:
            shares = tf.unstack(tf.cast(mixing[0], ends[0].dtype), num=len(ends))
            return tf.add_n([end * share for end, share in zip(ends, shares, strict=True)])
        channels = ends[0].shape[-1]
        matrices = tf.unstack(tf.cast(mixing[1], ends[0].dtype), num=len(ends))
        flat = [tf.reshape(end, [-1, channels]) for end in ends]
        mixed = tf.add_n([end @ matrix for end, matrix in zip(flat, matrices, strict=True)])
        return tf.reshape(mixed, tf.shape(ends[0]))

    def compute_output_shape(self, ends_shape, mixing_shape):
        """Returns the common shape of all block outputs."""
        return ends_shape[0]
