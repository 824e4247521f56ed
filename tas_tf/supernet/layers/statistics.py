"""Controls how batch normalisation updates its running statistics: as configured, not at all, or as a new average."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

_CURRENT = threading.local()  # every replica is traced in its own thread


@contextmanager
def running_momentum(momentum: Any) -> Iterator[None]:
    """Inside the block, updates running statistics to `running * momentum + batch * (1 - momentum)`.

    Args:
        momentum: Scalar. 1 leaves the statistics unchanged; i / (i + 1) at batch i makes them the mean over batches.
    """
    before = getattr(_CURRENT, "momentum", None)
    _CURRENT.momentum = momentum
    try:
        yield
    finally:
        _CURRENT.momentum = before


@contextmanager
def averaged_statistics(momentum: Any) -> Iterator[None]:
    """Inside the block, batch normalisation uses batch statistics and updates running ones with `momentum`.

    Call the network with `training=False` inside the block. Dropout and augmentation are then off, so the statistics
    match the images that the network is scored on.

    Args:
        momentum: Scalar, see `running_momentum`.
    """
    before = getattr(_CURRENT, "by_batch", False)
    _CURRENT.by_batch = True
    try:
        with running_momentum(momentum):
            yield
    finally:
        _CURRENT.by_batch = before


def uses_batch_statistics(training: bool | None) -> bool:
    """Whether to normalise by the batch's statistics: in training, and inside `averaged_statistics`."""
    return bool(training) or getattr(_CURRENT, "by_batch", False)


def update_running(layer: keras.Layer, mean: tf.Tensor, variance: tf.Tensor) -> None:
    """Updates `layer.moving_mean` and `layer.moving_variance` with the statistics of a batch."""
    momentum = getattr(_CURRENT, "momentum", None)
    if momentum is None:
        momentum = layer.momentum
    elif isinstance(momentum, (int, float)) and momentum == 1:
        return
    for running, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        running.assign(running * momentum + tf.stop_gradient(tf.cast(batch, running.dtype)) * (1.0 - momentum))


def sum_over_replicas(tensor: tf.Tensor, synchronized: bool) -> tf.Tensor:
    """Sums over replicas if they share statistics; otherwise returns the tensor itself."""
    context = tf.distribute.get_replica_context()
    if not synchronized or context is None or context.num_replicas_in_sync == 1:
        return tensor
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)
