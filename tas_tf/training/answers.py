"""Logits of a teacher that are computed once and learned from repeatedly: by several students, or in later epochs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tas_tf import workers
from tas_tf.data.share import WHOLE, reading
from tas_tf.data.training_data import EpochsDataset, TrainingData
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import distribute, own_share

#: Takes a number of batches to leave out, and returns the others.
Read: TypeAlias = Callable[[int], tf.data.Dataset]
#: Message of the error that ends a training whose images came in another order than before.
OTHER_ORDER = "The data came in another order when they were read again"
# Largest size of logits that are kept, in bytes.
_MOST_KEPT = 2**30


def kept_steps(data: TrainingData, batch_size: int) -> int:
    """Largest number of steps for which a teacher's logits are kept: as many as fit into memory if the data repeat.

    Args:
        data: Training images.
        batch_size: Images in a batch.
    """
    return _MOST_KEPT // (4 * data.objective.num_values * batch_size) if data.repeats else 0


def kept_views(data: TrainingData, settings: TrainSettings) -> int:
    """Epochs in which a student's teacher is asked, whose logits are then kept for later epochs; 0 for all epochs.

    Args:
        data: Training images.
        settings: Settings of the student's training.
    """
    _, per_epoch = data.training(settings.batch_size)
    return settings.views if settings.views * per_epoch <= kept_steps(data, settings.batch_size) else 0


class Answers:
    """Asks a teacher once about each batch, however often students learn from it.

    The teacher's forward pass may cost more than the student's training step. Its logits belong to the very images that
    it has seen, augmentation included.

    Args:
        teacher: Network ending in logits, made in the strategy's scope.
        strategy: Distribution strategy.
    """

    def __init__(self, teacher: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._strategy, self._logits_shape = strategy, tuple(teacher.outputs[0].shape[1:])
        self._teach = tf.function(lambda images: tf.cast(teacher(images, training=False), tf.float32))

    def to(self, read: Read, steps: int) -> Read:
        """Adds logits to the first batches of a dataset.

        Args:
            read: Takes a number of batches to leave out; returns batches of `(images, labels)`, the same each time.
            steps: Number of batches.

        Returns:
            A function that does so with batches of `(images, labels, logits)`. The first call asks the teacher.

        Raises:
            tf.errors.InvalidArgumentError: While the result is read: it came in another order than the first time.
        """
        ask = functools.cache(lambda: self._ask(read, steps))

        def join(batch: tuple[tf.Tensor, tf.Tensor], kept: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            (images, labels), (expected, logits) = batch, kept
            if labels.shape[0] != logits.shape[0]:  # this worker's part
                rows = own_share().rows(logits.shape[0])
                expected, logits = expected[rows], logits[rows]
            same = tf.debugging.assert_equal(labels, expected, OTHER_ORDER)
            with tf.control_dependencies([same]):
                return images, labels, tf.identity(logits)

        def answered(first_step: int = 0) -> tf.data.Dataset:
            batches = read(first_step).take(steps - first_step)
            joined = tf.data.Dataset.zip(batches, ask().skip(first_step)).map(join).with_options(batches.options())
            return joined.apply(tf.data.experimental.assert_cardinality(steps - first_step))

        return answered

    def spec(self, images: tf.TensorSpec, labels: tf.TensorSpec) -> tuple[tf.TensorSpec, ...]:
        """Specification of a batch with logits, of that of a batch."""
        return images, labels, tf.TensorSpec([images.shape[0], *self._logits_shape], tf.float32)

    def _ask(self, read: Read, steps: int) -> tf.data.Dataset:
        """Labels and logits of each global batch."""
        batch_size = None
        if workers.count() > 1:
            with reading(WHOLE):
                batch_size = read(0).element_spec[1].shape[0]
        with reading(own_share()):
            batches = distribute(self._strategy, read(0).take(steps), batch_size)
        gathered = [
            [
                self._strategy.gather(part, axis=0).numpy()
                for part in (labels, self._strategy.run(self._teach, (images,)))
            ]
            for images, labels in batches
        ]
        return tf.data.Dataset.from_tensor_slices(tuple(np.stack(parts) for parts in zip(*gathered, strict=True)))


class Turns:
    """Epochs with a teacher's logits of which only the first ones are new; then they come again in turns.

    Args:
        dataset: Batches by first epoch.
        answers: Asks the teacher.
        steps_per_epoch: Batches in an epoch.
        views: Number of different epochs.
    """

    def __init__(self, dataset: EpochsDataset, answers: Answers, *, steps_per_epoch: int, views: int) -> None:
        self._kept = [answers.to(functools.partial(dataset, number), steps_per_epoch) for number in range(views)]
        #: Specification of a batch, for which the teacher isn't asked.
        self.element_spec = answers.spec(*dataset(0).element_spec)

    def __call__(self, first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
        """Batches of `(images, labels, logits)` of a single epoch. The teacher is asked when an epoch is new."""
        return self._kept[first_epoch % len(self._kept)](first_step)
