"""Scores a shape in the recalibrated supernet, on images that aren't used to train the weights."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from tas_tf import workers
from tas_tf.averaging import cumulative
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.scoring import Scorer, tally_with_loss
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import Supernet
from tas_tf.supernet.layers.statistics import averaged_statistics
from tas_tf.supernet.sample import Sample


class HeldOutScore:
    """Scores shapes with the weights of a supernet.

    The running statistics of a supernet come from a mixture of shapes and suit none of them. Before each score, they
    are averaged again over the calibration batches.

    Args:
        supernet: Trained supernet. Only its running statistics are changed.
        space: Search space of the supernet.
        calibration: Finite batches of images that the weights are trained on.
        held_out: Finite batches of images that the weights aren't trained on.
        objective: What the outputs mean.
    """

    def __init__(
        self,
        supernet: Supernet,
        space: SearchSpace,
        calibration: Iterable,
        held_out: Iterable,
        objective: Objective,
    ) -> None:
        self._supernet, self._space, self.objective = supernet, space, objective
        self._calibration, self._held_out = calibration, held_out
        self._calibrate = tf.function(self._calibrate_batch, reduce_retracing=True)
        self._tally = tf.function(self._compute, reduce_retracing=True)

    def __call__(self, shape: Shape) -> float:
        """Computes the score of a shape that counts for the objective, such as its accuracy, 0 to 1."""
        score = self._score(shape)
        workers.share(self._supernet.non_trainable_variables)
        return score

    @workers.on_chief
    def _score(self, shape: Shape) -> float:
        sample = tuple(tf.constant(array) for array in Sample.one_hot(self._space, shape).arrays(self._space))
        self.calibrate(sample)
        scorer = Scorer(self.objective)
        for images, labels in self._held_out:
            tally, logits = self._tally(images, labels, sample)
            scorer.add(tally, labels, logits)
        return scorer.result()[self.objective.metric]

    def calibrate(self, sample: tuple) -> None:
        """Sets the running statistics to the mean over the calibration batches."""
        for (images, _), momentum in cumulative(self._calibration):
            self._calibrate(images, sample, tf.constant(momentum, tf.float32))

    def _calibrate_batch(self, images, sample, momentum):
        with averaged_statistics(momentum):
            self._supernet(images, sample=sample, training=False)

    def _compute(self, images, labels, sample):
        logits = self._supernet(images, sample=sample, training=False)
        return tally_with_loss(self.objective, labels, logits), logits
