"""One class of several for each image or pixel: softmax."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tas_tf.objectives.means import mean_of_known, mean_over_positions, ratios
from tas_tf.objectives.objective import Objective, Sums


class Classification(Objective):
    """Scores for several classes, of which one is right.

    Labels are class numbers, int64 `[batch]`, or `[batch, height, width]` per pixel. The score is the accuracy; per
    pixel it is the mean intersection over union of the classes.

    Example:
        >>> import tensorflow as tf
        >>> objective = Classification(3)
        >>> objective.losses(tf.constant([1]), tf.constant([[0.0, 100.0, 0.0]])).numpy().tolist()
        [0.0]
    """

    task, activation = "classification", "softmax"

    @property
    def noun(self) -> str:
        """The number of classes."""
        return f"{self.num_outputs} classes"

    @property
    def metric(self) -> str:
        """Accuracy, or per pixel the mean intersection over union."""
        return "mean_iou" if self.positions else "accuracy"

    @property
    def _label_shape(self) -> tuple[int, ...]:
        """A class number, or one for each pixel."""
        return self.positions

    @property
    def _label_dtype(self) -> tf.DType:
        """Whole numbers."""
        return tf.int64

    def standard_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Cross-entropies."""
        return mean_over_positions(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    def divergences(self, wanted: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
        """Divergences `T^2 * KL(teacher || student)`.

        Log-probabilities are computed directly from the logits. Clipped probabilities, as in
        `keras.losses.KLDivergence`, pass no gradient where logits are more than about 16 temperatures apart.

        Reference:
            Hinton et al. 2015, https://arxiv.org/abs/1503.02531
        """
        wanted, found = tf.nn.log_softmax(wanted / temperature), tf.nn.log_softmax(logits / temperature)
        return mean_over_positions(temperature**2 * tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=-1))

    def keras_loss(self) -> keras.losses.Loss:
        """Cross-entropy of logits; Keras's own, unless classes have weights or another loss was given."""
        if self.own_loss is not None or self.class_weight or self.weighs:
            return super().keras_loss()
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def _progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """1 for each image recognised, or the share of its pixels."""
        hits = tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels
        return mean_over_positions(tf.cast(hits, tf.float32))

    def _tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """Numbers of images or pixels by class: of those recognised, of all, and of those predicted."""
        labels, predicted = tf.reshape(labels, [-1]), tf.reshape(tf.argmax(logits, axis=-1), [-1])
        labels = tf.cast(labels, predicted.dtype)
        hits = tf.cast(predicted == labels, tf.float64)
        one = tf.ones_like(hits)
        return {
            "hits": tf.math.unsorted_segment_sum(hits, labels, self.num_outputs),
            "there": tf.math.unsorted_segment_sum(one, labels, self.num_outputs),
            "predicted": tf.math.unsorted_segment_sum(one, predicted, self.num_outputs),
        }

    def scores(self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, float]:
        """Accuracy; the mean over classes of their accuracies, or per pixel of their intersections over unions."""
        name = "mean_iou" if self.positions else "balanced_accuracy"
        accuracy = float(sums["hits"].sum() / sums["there"].sum())
        return {"accuracy": accuracy, name: mean_of_known(self.by_class(sums, ranked))}

    def by_class(
        self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None
    ) -> list[float | None]:
        """Share of the images of each class that are recognised; per pixel, its intersection over union."""
        hits, there = sums["hits"], sums["there"]
        return ratios(hits, there + sums["predicted"] - hits if self.positions else there)

    def constant_score(self, labels: np.ndarray) -> float:
        """Score of the most frequent class."""
        if not self.positions:
            return float(np.bincount(labels.reshape(-1).astype(np.int64)).max() / len(labels))
        share = labels.sum(0) / labels.sum()
        return float(share.max() / np.count_nonzero(share))

    def _summary(self, labels: np.ndarray) -> np.ndarray:
        """Class numbers, `[batch]`, or numbers of pixels of each class, `[batch, classes]`."""
        if not self.positions:
            return labels
        return np.stack([np.bincount(one.reshape(-1), minlength=self.num_outputs) for one in labels])

    def agreement(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """Share of images or pixels for which both choose the same class."""
        return float(np.mean(logits.argmax(axis=-1) == expected.argmax(axis=-1)))
