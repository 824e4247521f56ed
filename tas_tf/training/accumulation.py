"""Gradients of a batch whose activations don't fit into memory: of its parts, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

#: A tensor, or tensors in tuples and lists.
Tensors: TypeAlias = tf.Tensor | Sequence["Tensors"]


def over_parts(compute: Callable[..., Tensors], batch: Sequence[Tensors | None], parts: int) -> Tensors:
    """Computes something for equal parts of a batch, and returns the mean over them.

    The parts are computed one after another: the next one waits for the results of the one before, so that memory never
    holds activations of two.

    Args:
        compute: Takes a part of the batch and returns tensors, such as losses and gradients that are means over images.
        batch: Tensors whose first axis counts images, a multiple of `parts`; `None` stays `None`.
        parts: Number of parts.

    Returns:
        Tensors like those of `compute`; `None` stays `None`.

    Example:
        >>> mean = over_parts(lambda x: tf.reduce_mean(x), [tf.constant([1.0, 2.0, 3.0, 6.0])], 2)
        >>> float(mean)
        3.0
    """
    if parts == 1:
        return compute(*batch)
    total = None
    for number in range(parts):
        waits: list[Any] = [] if total is None else [one for one in tf.nest.flatten(total) if one is not None]
        with tf.control_dependencies(waits):
            part = tf.nest.map_structure(lambda tensor, number=number: _part(tensor, number, parts), list(batch))
        found = compute(*part)
        total = found if total is None else tf.nest.map_structure(_sum, total, found)
    return tf.nest.map_structure(lambda tensor: None if tensor is None else tensor / parts, total)


def _sum(first: tf.Tensor | None, second: tf.Tensor | None) -> tf.Tensor | None:
    """The sum; `None` for gradients of variables that the loss doesn't reach."""
    return None if first is None else first + second


def _part(tensor: tf.Tensor | None, number: int, parts: int) -> tf.Tensor | None:
    if tensor is None:
        return None
    count = tensor.shape[0]
    size = (tf.shape(tensor)[0] if count is None else count) // parts
    return tf.identity(tensor[number * size : (number + 1) * size])
