"""Compares a supernet with the students that it represents."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from benchmarks.small_networks import draw_weights
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import Supernet, build_supernet
from tas_tf.supernet.layers.statistics import running_momentum
from tas_tf.supernet.sample import Sample
from tas_tf.supernet.transfer import inherit_from_supernet

#: Random orders of a batch, and random changes of weights, by which rounding is measured.
_TRIALS = 4


def random_supernet(space: SearchSpace, seed: int = 0, **options) -> Supernet:
    """Builds a supernet with random weights: every candidate has its own BN scale and offset, and no bias is 0."""
    supernet = build_supernet(space, **options)
    draw_weights(supernet.body.weights, np.random.default_rng(seed))
    return supernet


class Comparison:
    """Compares a supernet at one-hot samples with the students of the same shapes.

    Args:
        space: Search space of the supernet.
        images: A fixed batch.
        compiled: Whether the supernet runs as a `tf.function`, which pays off for many shapes.
    """

    def __init__(self, space: SearchSpace, images: np.ndarray, *, compiled: bool = False, **options) -> None:
        self.space, self.images = space, tf.constant(images)
        self.supernet = random_supernet(space, **options)
        runs = {training: self._make_run(training) for training in (False, True)}
        self._runs = {key: tf.function(run) for key, run in runs.items()} if compiled else runs

    def _make_run(self, training: bool):
        def run(sample):
            with running_momentum(1.0):
                return self.supernet(self.images, sample=sample, training=training)

        return run

    def student(self, shape: Shape) -> keras.Model:
        """Builds the student of a shape with the supernet's weights."""
        student = build_student(self.space, shape, logits=True)
        inherit_from_supernet(student, self.supernet, self.space, shape)
        return student

    def check(
        self,
        shape: Shape,
        student: keras.Model | None = None,
        *,
        modes: tuple[bool, ...] = (False, True),
        tolerance: float = 1e-4,
    ) -> float:
        """Asserts that supernet and student give equal logits, in inference and in training.

        In networks that amplify rounding, the tolerance is five times the change in the student's logits when the batch
        is reordered, or each weight moved to one of the two nearest numbers: the largest over several trials, since
        rounding is random.

        Args:
            shape: The shape to compare.
            student: The student of the shape; built if not given.
            modes: Values of `training` to compare, inference first: training moves the student's running statistics.
            tolerance: Largest difference allowed in other networks, as a share of the largest logit.

        Returns:
            The largest difference, as a share of the largest logit.
        """
        student = student or self.student(shape)
        sample = tuple(tf.constant(array) for array in Sample.one_hot(self.space, shape).arrays(self.space))
        differences = []
        for training in modes:
            logits = student(self.images, training=training).numpy()
            largest = np.abs(logits).max()
            assert 0 < largest < np.inf, f"logits are 0 or not finite: {largest}, {training=}, {shape}"
            difference = float(np.abs(self._runs[training](sample).numpy() - logits).max() / largest)
            differences.append(difference)
            if difference >= tolerance:
                noise = max(self._changes(student, logits, training)) / largest
                assert noise < 2e-2, f"the network amplifies rounding too much to compare: {noise}"
                assert difference < 5 * noise, f"{difference}, rounding {noise}, {training=}, {shape}"
        return max(differences)

    def _changes(self, student: keras.Model, logits: np.ndarray, training: bool) -> Iterator[float]:
        """Yields changes in logits, the largest of each trial."""
        for order in self._orders():
            yield np.abs(student(tf.gather(self.images, order), training=training).numpy() - logits[order]).max()
        weights, rng = student.get_weights(), np.random.default_rng(0)
        for _ in range(_TRIALS):
            signs = [np.where(rng.random(one.shape) < 0.5, -1, 1).astype(one.dtype) for one in weights]
            student.set_weights([np.nextafter(one, np.inf * sign) for one, sign in zip(weights, signs, strict=True)])
            yield np.abs(student(self.images, training=training).numpy() - logits).max()
        student.set_weights(weights)

    def _orders(self) -> list[np.ndarray]:
        """Returns orders of the batch: reversed, and several random ones."""
        count, rng = len(self.images), np.random.default_rng(0)
        return [np.arange(count)[::-1], *(rng.permutation(count) for _ in range(_TRIALS))]
