"""What tests of the supernet share: supernets with random weights, run on samples of their own, or frozen in part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.comparison import Comparison, random_supernet
from benchmarks.small_networks import residual_network, space_of
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import Supernet
from tas_tf.supernet.layers.gates import ArchitectureGates
from tas_tf.supernet.sample import Sample

__all__ = [
    "Comparison",
    "apply_supernet",
    "freeze",
    "interpolation_matrix",
    "random_supernet",
    "residual_network",
    "space_of",
]


def apply_supernet(
    supernet: Supernet, space: SearchSpace, images: Any, sample: Sample, *, training: bool = False
) -> tf.Tensor:
    """Runs a supernet on an explicit sample.

    Args:
        supernet: Built for `space`.
        space: Gives the order of units and stages.
        images: `[batch, height, width, channels]`.
        sample: What to mix.
        training: Whether BN uses the batch's statistics, and moves its running ones.

    Returns:
        Logits, `[batch, classes]`.
    """
    tensors = tuple(tf.constant(array) for array in sample.arrays(space))
    return supernet(tf.convert_to_tensor(images), sample=tensors, training=training)


def freeze(gates: ArchitectureGates, names: Iterable[str]) -> None:
    """Takes the logits of these units and stages out of training, one by one."""
    for name in names:
        gates.logits_of(name).trainable = False


def interpolation_matrix(width: int, target: int) -> np.ndarray:
    """Adaptive average pooling from `width` to `target` channels as a matrix, `[width, target]`, float32."""
    rows = np.arange(width)[:, None]
    columns = np.arange(target)[None, :]
    first, end = columns * width // target, -(-(columns + 1) * width // target)
    inside = (rows >= first) & (rows < end)
    return (inside / (end - first)).astype(np.float32)
