"""Means and ratios of scores and losses."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def ratios(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    """Parts divided by wholes, `None` where there is no whole.

    >>> ratios(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    [0.5, None]
    """
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]


def mean_of_known(values: list[float | None]) -> float:
    """Mean of the values that are known, 0 without any.

    >>> mean_of_known([0.5, None, 1.0]), mean_of_known([None])
    (0.75, 0.0)
    """
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def mean_over_positions(values: tf.Tensor) -> tf.Tensor:
    """Averages over all axes but the first.

    >>> mean_over_positions(tf.constant([[1.0, 3.0], [2.0, 2.0]])).numpy().tolist()
    [2.0, 2.0]
    """
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank))) if values.shape.rank > 1 else values
