"""What all kinds of outputs have in common, and how their scores are summed up."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

# A network is near chance if it covers less than this part of the way from the best constant output to a perfect one.
_NEAR = 0.1

#: Takes labels and logits, returns the loss of each image, `[batch]`.
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
#: Figures of one or more batches, summed over images.
Sums = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Objective(abc.ABC):
    """What the outputs of a network mean.

    Logits are the outputs before the last activation, `[batch, outputs]`, or `[batch, height, width, outputs]` for
    outputs per pixel. All functions average over pixels.

    Attributes:
        num_outputs: Size of the last axis of the logits.
        positions: Height and width of outputs per pixel; empty for one output per image.
        own_loss: Takes labels and logits and returns the loss of each image, `[batch]`, in place of the standard one.
        class_weight: Weight of each class in training; for a single decision, of no and yes. Empty for equal ones.
        weighs: Whether images have weights in training, which stand behind their labels: float32 `[batch, labels + 1]`.
            Scores don't use them.
        loss_scale: Factor of the losses in training, see `scaled`.
    """

    num_outputs: int
    positions: tuple[int, ...] = ()
    own_loss: Loss | None = field(default=None, kw_only=True)
    class_weight: tuple[float, ...] = field(default=(), kw_only=True)
    weighs: bool = field(default=False, kw_only=True)
    loss_scale: float = field(default=1.0, kw_only=True)

    #: Name of the kind, as in `--task`.
    task: ClassVar[str]
    #: Last activation of such a network if it doesn't end in logits.
    activation: ClassVar[str]
    #: Whether scores need the outputs of all images at once.
    ranks: ClassVar[bool] = False
    #: Score of a perfect network.
    perfect: ClassVar[float] = 1.0
    #: Whether a higher score is better.
    higher_is_better: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """Name of the score that counts."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of an image's label."""
        return (math.prod(self._label_shape) + 1,) if self.weighs else self._label_shape

    @property
    def label_dtype(self) -> tf.DType:
        """Type of labels."""
        return tf.float32 if self.weighs else self._label_dtype

    @property
    def _label_shape(self) -> tuple[int, ...]:
        """Shape of a label without a weight: a number for each output, unless the kind says otherwise."""
        return (*self.positions, self.num_outputs)

    @property
    def _label_dtype(self) -> tf.DType:
        """Type of labels without weights: floats, unless the kind says otherwise."""
        return tf.float32

    def split(self, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Takes labels and weights of images apart; there are none if images don't have weights."""
        if not self.weighs:
            return labels, None
        own = tf.reshape(labels[:, :-1], [-1, *self._label_shape])
        return tf.cast(own, self._label_dtype), labels[:, -1]

    @abc.abstractmethod
    def standard_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Loss of each image, `[batch]`, in the logits' type, unless another loss was given."""

    def losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Loss of each image, `[batch]`, in the logits' type."""
        loss = self.standard_losses if self.own_loss is None else self.own_loss
        return loss(self.split(labels)[0], logits)

    def weighted(self, labels: tf.Tensor, losses: tf.Tensor) -> tf.Tensor:
        """Multiplies the losses of images, `[batch]`, by the weights of their classes and by their own."""
        labels, weights = self.split(labels)
        if weights is not None:
            losses = losses * tf.cast(weights, losses.dtype)
        if not self.class_weight:
            return losses
        numbers = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        return losses * tf.gather(tf.constant(self.class_weight, losses.dtype), numbers)

    @abc.abstractmethod
    def divergences(self, wanted: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
        """Distance of each image's outputs from the teacher's, `[batch]`, 0 if they agree.

        Args:
            wanted: The teacher's logits.
            logits: The student's logits.
            temperature: Divisor of both, if the outputs are probabilities. The distance is multiplied by its square, so
                that gradients don't depend on it much.
        """

    def training_losses(
        self,
        labels: tf.Tensor,
        logits: tf.Tensor,
        wanted: tf.Tensor | None = None,
        *,
        alpha: float | tf.Tensor = 0.0,
        temperature: float = 1.0,
    ) -> tf.Tensor:
        """`(1 - alpha) * loss + alpha * divergence from the teacher` of each image, weighted and scaled, `[batch]`.

        Args:
            labels: Labels.
            logits: The student's logits.
            wanted: The teacher's logits; without them, only the labels count.
            alpha: Weight of the divergence.
            temperature: See `divergences`.
        """
        losses = self.losses(labels, logits)
        if wanted is not None:
            losses = (1 - alpha) * losses + alpha * self.divergences(wanted, logits, temperature)
        return self.loss_scale * self.weighted(labels, losses)

    def scaled(self, labels: np.ndarray, weight: float = 1.0) -> Self:
        """The same with losses in training for which the usual learning rates suit the labels.

        Losses of classes need no scale. Those of values grow with the unit of the values: gradients of prices in cents
        would diverge where those of prices in thousands don't.

        Args:
            labels: Summaries of the training images' labels, see `summary`.
            weight: Weight of the loss among those of several outputs.
        """
        return self

    def progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """What is averaged and shown while a network is trained, `[batch]`; its name is `progress_name`."""
        return self._progress(self.split(labels)[0], logits)

    @abc.abstractmethod
    def _progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """`progress` for labels without weights."""

    def keras_loss(self) -> keras.losses.Loss:
        """The loss for `keras.Model.compile`."""
        return _Loss(self)

    def keras_metric(self, name: str | None = None) -> keras.metrics.Metric:
        """The mean of `progress`, by default under its own name."""
        return keras.metrics.MeanMetricWrapper(self.progress, name=name or self.progress_name)

    @property
    def progress_name(self) -> str:
        """Name of what `progress` returns."""
        return "accuracy"

    def tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """Sums over a batch from which `scores` follow, float64."""
        return self._tally(self.split(labels)[0], logits)

    @abc.abstractmethod
    def _tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """`tally` for labels without weights."""

    def to_rank(self, labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `scores` needs of a batch if it needs all images at once: labels without weights, and logits."""
        return np.asarray(self.split(tf.convert_to_tensor(labels))[0]), np.asarray(logits)

    @abc.abstractmethod
    def scores(self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, float]:
        """Scores of a network, without its loss.

        Args:
            sums: Sum of all tallies.
            ranked: What `to_rank` returns for all images, if `ranks`.
        """

    def by_class(
        self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None
    ) -> list[float | None]:
        """Score of each class or label, in order, `None` for those that don't occur; empty for values.

        Args:
            sums: See `scores`.
            ranked: See `scores`.
        """
        return []

    @abc.abstractmethod
    def constant_score(self, labels: np.ndarray) -> float:
        """Score of the best network whose output is the same for all images.

        Args:
            labels: Summaries of all labels, see `summary`.
        """

    def summary(self, labels: np.ndarray) -> np.ndarray:
        """What `constant_score` needs of a batch of labels, `[batch, ...]`."""
        return self._summary(np.asarray(self.split(tf.convert_to_tensor(labels))[0]) if self.weighs else labels)

    @abc.abstractmethod
    def _summary(self, labels: np.ndarray) -> np.ndarray:
        """`summary` for labels without weights."""

    @abc.abstractmethod
    def agreement(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """How well two networks agree, 0 to 1.

        Args:
            logits: Logits of one network.
            expected: Those of the other.
        """

    @property
    def has_positions(self) -> bool:
        """Whether any output is per pixel."""
        return bool(self.positions)

    @property
    def num_values(self) -> int:
        """Logits of an image."""
        return self.num_outputs * math.prod(self.positions)

    def quality(self, scores: Mapping[str, float]) -> float:
        """A number from 0, useless, to 1, perfect, that can be averaged over outputs of different kinds.

        Args:
            scores: What `scores` returned.
        """
        return scores[self.metric]

    def constant_quality(self, labels: np.ndarray) -> float:
        """Quality of the best constant output, given summaries of all labels."""
        return self.constant_score(labels)

    def goodness(self, score: float) -> float:
        """A number that is higher for better scores."""
        return score if self.higher_is_better else -score

    def is_near(self, score: float, constant: float) -> bool:
        """Whether a score is hardly better than that of the best constant output.

        >>> from tas_tf.objectives.classification import Classification
        >>> Classification(10).is_near(0.15, 0.1), Classification(10).is_near(0.3, 0.1)
        (True, False)
        """
        return self.goodness(score) < self.goodness(constant + _NEAR * (self.perfect - constant))

    def drop_of(self, score: float, expected: float, constant: float) -> float:
        """How much worse a score is than another one: the difference; of errors, as a share of a constant's error.

        Args:
            score: The score.
            expected: The other one.
            constant: Score of the best constant output.
        """
        lost = self.goodness(expected) - self.goodness(score)
        return lost if self.higher_is_better or not constant else lost / constant

    @property
    def points(self) -> str:
        """What hundredths of `drop_of` are, in words."""
        words = self.metric.replace("_", " ")
        return f"points of {words}" if self.higher_is_better else f"percent of the best constant's {words}"

    def told(self, score: float) -> str:
        """The score in words.

        >>> from tas_tf.objectives.classification import Classification
        >>> Classification(10).told(0.9)
        'accuracy 0.9000'
        """
        return f"{self.metric.replace('_', ' ')} {score:.4f}"

    def told_apart(self, metrics: Mapping[str, float]) -> str:
        """The score that counts among a network's metrics, and what it consists of."""
        return f"{metrics[self.metric]:.3f}"

    @property
    @abc.abstractmethod
    def noun(self) -> str:
        """What the outputs are, such as `10 classes`, without saying whether they are per pixel."""

    @property
    def outputs_in_words(self) -> str:
        """What the outputs are, such as `10 classes per pixel`."""
        return f"{self.noun} per pixel" if self.positions else self.noun

    def __str__(self) -> str:
        """The kind in words."""
        return f"{self.task} per pixel" if self.positions else self.task


class _Loss(keras.losses.Loss):
    """The losses of an objective in the form that Keras expects."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(name=objective.task)
        self._objective = objective

    def call(self, y_true, y_pred):
        """Losses, `[batch]`."""
        labels = tf.cast(y_true, self._objective.label_dtype)  # Keras makes floats of class numbers
        return self._objective.training_losses(labels, y_pred)
