"""How batch normalisation treats its running statistics: as configured, left alone, or averaged anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

_CURRENT = threading.local()  # every replica is traced in a thread of its own


@contextmanager
def running_momentum(momentum: Any) -> Iterator[None]:
    """Within, running statistics move by `running * momentum + batch * (1 - momentum)`.

    Args:
        momentum: Scalar; 1 leaves them alone, i / (i + 1) at batch i makes them the mean over batches.
    """
    before = getattr(_CURRENT, "momentum", None)
    _CURRENT.momentum = momentum
    try:
        yield
    finally:
        _CURRENT.momentum = before


@contextmanager
def averaged_statistics(momentum: Any) -> Iterator[None]:
    """Within, batch normalisation alone acts as in training, and its running statistics move by `momentum`.

    The network is called with `training=False`, so dropout and augmentation stay out: statistics are those of images
    as the network will be scored on.

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
    """Whether normalisation goes by the batch's statistics: in training, and within `averaged_statistics`."""
    return bool(training) or getattr(_CURRENT, "by_batch", False)


def update_running(layer: keras.Layer, mean: tf.Tensor, variance: tf.Tensor) -> None:
    """Moves `layer.moving_mean` and `layer.moving_variance` towards a batch's."""
    momentum = getattr(_CURRENT, "momentum", None)
    if momentum is None:
        momentum = layer.momentum
    elif isinstance(momentum, (int, float)) and momentum == 1:
        return
    for running, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        running.assign(running * momentum + tf.stop_gradient(tf.cast(batch, running.dtype)) * (1.0 - momentum))


def sum_over_replicas(tensor: tf.Tensor, synchronized: bool) -> tf.Tensor:
    """Sums over replicas where statistics are shared among them; else the tensor itself."""
    context = tf.distribute.get_replica_context()
    if not synchronized or context is None or context.num_replicas_in_sync == 1:
        return tensor
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)
