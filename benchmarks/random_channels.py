"""Random parts that combine, normalise, select or share channels; they take the `Parts` that draw everything else."""

from __future__ import annotations

import math

import keras
from keras import layers

#: Widths from which a search keeps at least two channels: LayerNormalization over a single channel gives only rounding.
LAYER_NORM_FROM = 7
#: Fewest values in a group that is normalised.
_IN_GROUP = 16


def normalise(parts, x):
    """Applies a normalisation of any kind, usually of the batch, or none."""
    *positions, channels = x.shape[1:]
    over_channels = ["layer", "layer, no scale", "root mean square"] if channels >= LAYER_NORM_FROM else []
    kind = parts.one_of(*["batch"] * 5, "no scale", "no centre", "large epsilon", "groups", "none", *over_channels)
    if kind == "none":
        return x
    if kind == "root mean square":
        return layers.RMSNormalization()(x)
    if kind in over_channels:
        return layers.LayerNormalization(scale=kind == "layer")(x)
    if kind == "groups":
        values = channels * math.prod(positions)
        groups = [one for one in range(1, channels + 1) if channels % one == 0 and values // one >= _IN_GROUP]
        return layers.GroupNormalization(parts.one_of(*groups or [1]))(x)
    # No smaller epsilon: in channels that hardly vary, it would amplify rounding.
    epsilon = 1e-2 if kind == "large epsilon" else 1e-3
    return layers.BatchNormalization(scale=kind != "no scale", center=kind != "no centre", epsilon=epsilon)(x)


def reduce(parts, x):
    """Combines features with a reduction of their channels, or with functions that are infinite at zero."""
    ops = keras.ops
    return parts.one_of(
        lambda: x - ops.mean(x, axis=-1, keepdims=True),
        lambda: x * ops.sigmoid(ops.max(x, axis=-1, keepdims=True)),
        lambda: x + ops.tanh(ops.sum(x, axis=(1, 2, 3), keepdims=True)),
        lambda: ops.maximum(x, ops.min(x, axis=-1, keepdims=True) / 2.0),
        lambda: x / (1.0 + ops.norm(x, axis=-1, keepdims=True)),
        lambda: layers.UnitNormalization()(x + 0.5),
        lambda: ops.sqrt(ops.sigmoid(x)),
        lambda: x / (0.5 + ops.sigmoid(layers.Conv2D(x.shape[-1], 1)(x))),
        lambda: x * ops.power(0.5 + ops.sigmoid(x), -0.5),
        lambda: ops.max(ops.stack([x, ops.flip(x, axis=1)], axis=1), axis=1),
    )()


def cut(parts, x, whole: bool):
    """Takes a part of the positions or channels, unless they are to stay whole, or adds channels of zeros."""
    return parts.one_of(
        lambda: keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
        lambda: x if whole else x[:, 1:, :-1],
        lambda: x if whole else x[..., 2:],
        lambda: x if whole else keras.ops.split(x, [4], axis=-1)[0],
    )()


def shared(parts, x):
    """Applies blocks whose convolutions or normalisations are called several times."""
    filters = parts.width()
    x = parts.unit(x, filters)
    conv = layers.Conv2D(
        filters, parts.one_of(1, 3), padding="same", activation=parts.one_of(None, None, "relu", "sigmoid", "silu")
    )
    norm = layers.BatchNormalization() if parts.rng.randrange(2) else layers.Identity()
    kind = parts.one_of("recurrent", "residual", "siamese")
    if kind == "siamese":
        left, right = (norm(conv(parts.unit(one, filters))) for one in (x, parts.activate(x)))
        return parts.merge([left, right])
    for _ in range(parts.rng.randint(2, 3)):
        y = norm(conv(parts.unit(x, filters) if kind == "residual" else x))
        x = parts.activate(layers.Add()([x, y]) if kind == "residual" else y)
    return x


def halves(parts, x):
    """Applies blocks that split their channels, transform a part and join all again."""
    sides = [parts.unit(x, parts.width()) for _ in range(2)]
    for _ in range(parts.rng.randint(1, 3)):
        x = layers.Concatenate()(sides)
        place = sides[0].shape[-1] if parts.rng.randrange(3) else x.shape[-1] // 2
        left, right = keras.ops.split(x, [place], axis=-1)
        sides = parts.one_of([left, parts.unit(right, parts.width())], [parts.unit(right, parts.width()), left])
    return layers.Concatenate()(sides)


def u_shaped(parts, x):
    """Applies a path down and up again, with features of the same size concatenated."""
    skipped = parts.unit(x, parts.width())
    x = layers.MaxPooling2D(2, padding="same")(skipped)
    x = parts.enlarge(parts.unit(x, parts.width()))
    x = parts.activate(parts.normalise(x))
    too_high, too_wide = (large - small for large, small in zip(x.shape[1:3], skipped.shape[1:3], strict=True))
    x = layers.Cropping2D(((0, too_high), (0, too_wide)))(x) if too_high or too_wide else x
    return parts.unit(layers.Concatenate()([skipped, x]), parts.width())
