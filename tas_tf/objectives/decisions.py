"""Independent yes or no decisions for each image or pixel: sigmoid."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tas_tf.objectives.means import mean_of_known, mean_over_positions, ratios
from tas_tf.objectives.objective import Objective, Sums


class Decisions(Objective):
    """Independent decisions, each with a logit of its own that is above 0 for yes.

    Labels are 0 or 1, float32 `[batch, decisions]`, or `[batch, height, width, decisions]` per pixel.
    """

    activation = "sigmoid"
    #: Name of the score that counts for outputs per image.
    _metric_of_images: ClassVar[str]

    @property
    def metric(self) -> str:
        """The score of images, or per pixel the mean intersection over union."""
        return "mean_iou" if self.positions else self._metric_of_images

    @property
    def ranks(self) -> bool:
        """For scores of images, which need the order of all outputs; they aren't computed per pixel."""
        return not self.positions

    def standard_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Binary cross-entropies, averaged over decisions."""
        labels = tf.cast(labels, logits.dtype)
        return mean_over_positions(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))

    def divergences(self, wanted: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
        """Divergences `T^2 * KL(teacher || student)` of each decision, averaged over decisions.

        Reference:
            Yang et al. 2023, multi-label logit distillation, https://arxiv.org/abs/2308.06453
        """
        wanted, logits = wanted / temperature, logits / temperature
        share = tf.sigmoid(wanted)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(share, logits)
        own = tf.nn.sigmoid_cross_entropy_with_logits(share, wanted)
        return mean_over_positions(temperature**2 * (cross - own))

    def _progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Shares of right decisions."""
        return mean_over_positions(tf.cast((logits > 0) == (labels > 0.5), tf.float32))

    def _tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """Numbers of images or pixels by decision: right ones and all, for the labels no and yes, and all yes."""
        shape = [-1, self.num_outputs]
        said, there = (tf.reshape(each, shape) for each in (logits > 0, tf.cast(labels, tf.float32) > 0.5))
        counts = {
            "right_no": tf.logical_not(said | there),
            "right_yes": said & there,
            "no": tf.logical_not(there),
            "yes": there,
            "said": said,
        }
        return {name: tf.reduce_sum(tf.cast(each, tf.float64), axis=0) for name, each in counts.items()}

    def scores(self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, float]:
        """Share of right decisions and the scores of images; per pixel the mean intersection over union."""
        right, whole = sums["right_no"] + sums["right_yes"], sums["no"] + sums["yes"]
        each = mean_of_known(self.by_class(sums, ranked))
        more = {"mean_iou": each} if self.positions else self._scores_of_images(each, sums, *ranked)
        return {"accuracy": float(right.sum() / whole.sum()), **more}

    @abc.abstractmethod
    def _scores_of_images(
        self, mean: float, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> dict[str, float]:
        """Scores of outputs per image besides the accuracy, given the mean of `by_class`."""

    def by_class(
        self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None
    ) -> list[float | None]:
        """Score of each label, of a single decision of no and yes; per pixel, its intersection over union."""
        if not self.positions:
            return self._by_class_of_images(sums, *ranked)
        hits, union = sums["right_yes"], sums["yes"] + sums["said"] - sums["right_yes"]
        if self.num_outputs == 1:
            whole = sums["no"] + sums["yes"]
            hits = np.concatenate([sums["right_no"], hits])
            union = np.concatenate([whole - sums["right_yes"], union])
        return ratios(hits, union)

    @abc.abstractmethod
    def _by_class_of_images(
        self, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> list[float | None]:
        """`by_class` for outputs per image."""

    def _summary(self, labels: np.ndarray) -> np.ndarray:
        """Share of yes for each image and decision, `[batch, decisions]`."""
        return labels.reshape(len(labels), -1, self.num_outputs).mean(1)

    def agreement(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """Share of decisions that are the same."""
        return float(np.mean((logits > 0) == (expected > 0)))


class Binary(Decisions):
    """A single decision. The score is the accuracy; per pixel it is the mean intersection over union of yes and no.

    Example:
        >>> import tensorflow as tf
        >>> Binary(1).losses(tf.constant([[1.0]]), tf.constant([[100.0]])).numpy().tolist()
        [0.0]
    """

    task, noun = "binary", "yes or no"

    _metric_of_images = "accuracy"

    def _by_class_of_images(
        self, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> list[float | None]:
        """Shares of right answers among those that are no, and among those that are yes."""
        return ratios(np.concatenate([sums["right_no"], sums["right_yes"]]), np.concatenate([sums["no"], sums["yes"]]))

    def _scores_of_images(
        self, mean: float, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> dict[str, float]:
        """The mean of the accuracies of yes and no, and the area under the ROC curve."""
        found = {"balanced_accuracy": mean}
        if sums["no"][0] and sums["yes"][0]:  # otherwise there are no pairs to rank
            from sklearn.metrics import roc_auc_score  # here, because importing it takes a second

            found["roc_auc"] = float(roc_auc_score(labels[:, 0], logits[:, 0]))
        return found

    def constant_score(self, labels: np.ndarray) -> float:
        """Score of the more frequent answer."""
        share = float(labels.mean())
        return max(share, 1 - share) / (2 if self.positions else 1)


class Multilabel(Decisions):
    """Several decisions. The score is the mean average precision; per pixel it is the mean intersection over union."""

    task = "multilabel"

    @property
    def noun(self) -> str:
        """The number of labels."""
        return f"{self.num_outputs} labels"

    _metric_of_images = "mean_average_precision"

    def _by_class_of_images(
        self, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> list[float | None]:
        """Average precision of each label."""
        from sklearn.metrics import average_precision_score  # here, because importing it takes a second

        return [
            float(average_precision_score(labels[:, one], logits[:, one])) if labels[:, one].any() else None
            for one in range(self.num_outputs)
        ]

    def _scores_of_images(
        self, mean: float, sums: Mapping[str, np.ndarray], labels: np.ndarray, logits: np.ndarray
    ) -> dict[str, float]:
        """The mean average precision over labels that occur."""
        return {"mean_average_precision": mean}

    def constant_score(self, labels: np.ndarray) -> float:
        """Average precision of a constant: the mean share of yes of the labels that occur; per pixel of always yes."""
        shares = labels.mean(0)
        return float(shares[shares > 0].mean()) if shares.any() else 0.0
