"""Channel-wise interpolation (CWI): resamples features of different widths linearly to one width.

Output channel i of m is the mean of the inputs from floor(i c / m) up to, but not including, ceil((i + 1) c / m), as in
adaptive average pooling.

Reference:
    Dong and Yang 2019, section 3.2, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import tensorflow as tf


def widening_taps(widths: tf.Tensor, target: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the two inputs of every output channel, each with a share of one half, when widths grow to `target`.

    When c channels grow to m >= c, a window covers one input (then both taps read it) or two. Two taps per channel thus
    describe the whole map in O(channels) instead of a matrix, for all values of c and m at run time.

    Args:
        widths: `[choices, drawn]`, int32, each at most the choice's target.
        target: `[choices]`, int32, at least 1.
        channels: Channels of the full tensor. Outputs from `target` on read nothing.

    Returns:
        Input channels, `[choices, drawn, 2, channels]`, int32, and their shares (0.5 or 0), same shape, float32.
    """
    outputs = tf.range(channels)
    widths, target = widths[:, :, None], target[:, None, None]
    first = outputs * widths // target
    last = ((outputs + 1) * widths + target - 1) // target - 1
    kept = tf.broadcast_to(outputs < target, tf.shape(first))
    taps = tf.stack([first, last], axis=2)
    shares = tf.stack([kept, kept], axis=2)
    return tf.where(shares, taps, 0), 0.5 * tf.cast(shares, tf.float32)
