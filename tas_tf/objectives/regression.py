"""Real numbers for each image or pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.objectives.means import mean_over_positions
from tas_tf.objectives.objective import Objective, Sums

#: Losses of a regression by name.
LOSSES = ("mse", "mae", "huber")


@dataclass(frozen=True)
class Regression(Objective):
    """Real numbers: the logits themselves, or their sigmoids.

    Labels are float32 `[batch, values]`, or `[batch, height, width, values]` per pixel. The score is the mean absolute
    error, of which less is better.

    Attributes:
        loss: `mse`, the squared error, `mae`, the absolute one, or `huber`, which is squared for errors below 1.
        squashed: Whether the network ends in a sigmoid, so that values are from 0 to 1.

    Example:
        >>> import tensorflow as tf
        >>> Regression(2).losses(tf.constant([[1.0, 2.0]]), tf.constant([[1.0, 4.0]])).numpy().tolist()
        [2.0]
    """

    loss: str = "mse"
    squashed: bool = False

    task, activation = "regression", "linear"
    perfect, higher_is_better = 0.0, False
    metric = "mae"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"`loss` of a regression must be one of {', '.join(LOSSES)}. Received: {self.loss!r}.")

    @property
    def noun(self) -> str:
        """The number of values."""
        return "one value" if self.num_outputs == 1 else f"{self.num_outputs} values"

    @property
    def progress_name(self) -> str:
        """The mean absolute error."""
        return "mae"

    def standard_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Errors, averaged over values."""
        errors = tf.abs(tf.cast(labels, logits.dtype) - self._values(logits))
        if self.loss == "mae":
            return mean_over_positions(errors)
        if self.loss == "huber":
            return mean_over_positions(tf.where(errors < 1, errors**2 / 2, errors - 0.5))
        return mean_over_positions(errors**2)

    def scaled(self, labels: np.ndarray, weight: float = 1.0) -> Self:
        """The same, with squared errors divided by the labels' variance, and others by its root, if above 1.

        Per pixel, it is the variance of the images' means. A weight that already makes up for the unit stays as it is,
        and so does a loss of the user's own.

        >>> tens = np.array([[-10.0], [10.0]])
        >>> [Regression(1).scaled(tens, weight).loss_scale for weight in (1.0, 0.01)]
        [0.01, 1.0]
        >>> Regression(1, loss="mae").scaled(tens).loss_scale, Regression(1).scaled(tens / 100).loss_scale
        (0.1, 1.0)
        """
        variance = float(np.var(labels, axis=0).mean())
        size = variance if self.loss == "mse" else math.sqrt(variance)
        return self if self.own_loss is not None else replace(self, loss_scale=1 / max(1.0, min(size, weight * size)))

    def divergences(self, wanted: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
        """The same errors with the teacher's values in place of labels; the temperature has no meaning here."""
        return self.standard_losses(self._values(wanted), logits)

    def _values(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(logits) if self.squashed else logits

    def _progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Absolute errors, averaged over values."""
        return mean_over_positions(tf.abs(tf.cast(labels, logits.dtype) - self._values(logits)))

    def _tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """Sums of errors, squared errors, labels and squared labels for each value."""
        logits = self._values(logits)
        labels, found = (tf.reshape(tf.cast(each, tf.float64), [-1, self.num_outputs]) for each in (labels, logits))
        sums = {"error": tf.abs(labels - found), "square": (labels - found) ** 2, "label": labels, "power": labels**2}
        count = tf.cast(tf.shape(labels)[0], tf.float64)
        return {**{name: tf.reduce_sum(each, axis=0) for name, each in sums.items()}, "count": count}

    def scores(self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, float]:
        """Mean absolute error, root of the mean squared error, and the share of the labels' variance explained."""
        count = sums["count"]
        variance = np.mean(sums["power"] / count - (sums["label"] / count) ** 2)
        square = np.mean(sums["square"] / count)
        found = {"mae": float(np.mean(sums["error"] / count)), "rmse": float(np.sqrt(square))}
        return {**found, "r2": float(1 - square / variance)} if variance > 0 else found

    def quality(self, scores: Mapping[str, float]) -> float:
        """The share of the labels' variance that is explained, at least 0."""
        return max(0.0, scores.get("r2", 0.0))

    def constant_quality(self, labels: np.ndarray) -> float:
        """A constant explains nothing."""
        return 0.0

    def constant_score(self, labels: np.ndarray) -> float:
        """Mean absolute error of always answering with the median of each value."""
        return float(np.mean(np.abs(labels - np.median(labels, axis=0))))

    def _summary(self, labels: np.ndarray) -> np.ndarray:
        """Mean of each value over pixels, `[batch, values]`."""
        return labels.reshape(len(labels), -1, self.num_outputs).mean(1)

    def agreement(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """Share of the variance of the expected values that the others explain, at least 0."""
        found, wanted = (np.asarray(self._values(tf.constant(each))) for each in (logits, expected))
        variance = float(np.var(wanted.reshape(-1, self.num_outputs), axis=0).mean())
        error = float(np.mean((found - wanted) ** 2))
        return 1.0 if not error else max(0.0, 1 - error / variance) if variance else 0.0

    def told(self, score: float) -> str:
        """The mean absolute error in words."""
        return f"mean absolute error {score:.4g}"
