"""Orders of examples that depend on a seed and an epoch's number alone, so that a resumed training reads the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

#: Number of an epoch of training, also as a tensor; `None` apart from training.
Epoch: TypeAlias = int | tf.Tensor | None


def seed_of_epoch(seed: int, epoch: Epoch) -> tf.Tensor:
    """Seed of the order in which data is read in an epoch, int64 `[2]`; apart from training, that of the first one."""
    return tf.random.fold_in(tf.constant((seed, 0), tf.int64), tf.cast(0 if epoch is None else epoch, tf.int64))


def epoch_after_epoch(first_epoch: int | tf.Tensor, read: Callable[[tf.Tensor], tf.data.Dataset]) -> tf.data.Dataset:
    """Reads an epoch and those after it, endlessly.

    Args:
        first_epoch: Number of the first epoch.
        read: Takes the number of an epoch, as a tensor, and returns its elements.
    """
    numbers = tf.data.Dataset.range(tf.cast(first_epoch, tf.int64), np.iinfo(np.int64).max)
    return numbers.flat_map(read)


def shuffled(dataset: tf.data.Dataset, buffer: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Shuffles a dataset within a buffer, by the seed alone.

    Args:
        dataset: The dataset.
        buffer: Number of elements in the buffer.
        seed: Two integers.
    """

    def shuffle(seed: tf.Tensor) -> tf.data.Dataset:
        # `Dataset.shuffle` mixes in the global seed, which trainings set, and fails on a tensor if that is 0. This sets
        # it for the graph of this function only.
        tf.compat.v1.set_random_seed(1)
        number = tf.random.stateless_uniform([], seed, maxval=tf.int64.max, dtype=tf.int64)
        return dataset.shuffle(buffer, seed=number, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(seed).flat_map(shuffle)
