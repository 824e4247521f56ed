"""Channel-wise interpolation (CWI): brings features of different widths to one width, linearly.

Output channel i of m is the mean of inputs floor(i c / m) up to ceil((i + 1) c / m), as in adaptive average pooling.

Reference:
    Dong and Yang 2019, section 3.2, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import tensorflow as tf


def widening_taps(widths: tf.Tensor, target: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each output channel reads when widths grow to `target`: from at most two inputs, each by half.

    Growing from c to m >= c channels, a window is at most two inputs wide, so the whole map is two taps a channel -
    O(channels) instead of a matrix, whatever c and m are at run time.

    Args:
        widths: `[choices, drawn]`, int32, each at most the choice's target.
        target: `[choices]`, int32, at least 1.
        channels: Channels of the full tensor; outputs from `target` on read nothing.

    Returns:
        Input channels, `[choices, drawn, 2, channels]`, int32, and their shares (0.5 or 0), float32, of that shape.
    """
    outputs = tf.range(channels)
    widths, target = widths[:, :, None], target[:, None, None]
    first = outputs * widths // target
    last = ((outputs + 1) * widths + target - 1) // target - 1
    kept = tf.broadcast_to(outputs < target, tf.shape(first))
    taps = tf.stack([first, last], axis=2)
    shares = tf.stack([kept, kept], axis=2)
    return tf.where(shares, taps, 0), 0.5 * tf.cast(shares, tf.float32)
