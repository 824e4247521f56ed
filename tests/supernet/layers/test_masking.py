"""Masks and depth mixing, against NumPy."""

import numpy as np
import tensorflow as tf

from tas_tf.supernet.layers.masking import DepthMix, KeptChannels, MaskChannels
from tests.supernets import interpolation_matrix


def test_kept_channels_repeat_segments():
    layer = KeptChannels([(0, 3), (None, 2), (1, 4), (0, 3)])
    kept = layer(tf.constant([2, 1, 9]))
    np.testing.assert_array_equal(kept, [1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0])
    assert layer.compute_output_shape((3,)) == (12,)
    assert KeptChannels.from_config(layer.get_config()).segments == layer.segments


def test_mask_channels_keeps_the_type():
    inputs = tf.ones([2, 2, 3], tf.bfloat16)
    outputs = MaskChannels(dtype="bfloat16")(inputs, tf.constant([1.0, 0.0, 1.0]))
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), np.tile([1.0, 0.0, 1.0], (2, 2, 1)))


def test_depth_mix_of_ends_alike_is_a_weighted_sum():
    ends = [np.random.default_rng(seed).normal(size=(2, 3, 4)).astype("float32") for seed in range(3)]
    shares = np.array([0.2, 0.5, 0.3], np.float32)
    outputs = DepthMix()([tf.constant(end) for end in ends], (tf.constant(shares),))
    np.testing.assert_allclose(outputs, np.tensordot(shares, ends, 1), rtol=1e-5)


def test_depth_mix_widens_by_its_matrices():
    widths, target, channels = (2, 4), 4, 5
    ends = [np.random.default_rng(width).normal(size=(2, 3, channels)).astype("float32") for width in widths]
    for end, width in zip(ends, widths, strict=True):
        end[..., width:] = 0
    shares = np.array([0.3, 0.7], np.float32)
    matrices = np.zeros((2, channels, channels), np.float32)
    for place, width in enumerate(widths):
        matrices[place, :width, :target] = shares[place] * interpolation_matrix(width, target)
    outputs = DepthMix()([tf.constant(end) for end in ends], (tf.constant(shares), tf.constant(matrices)))
    wanted = 0.3 * ends[0][..., [0, 0, 1, 1]] + 0.7 * ends[1][..., :4]
    np.testing.assert_allclose(outputs[..., :4], wanted, rtol=1e-5)
    np.testing.assert_array_equal(outputs[..., 4:], 0.0)
