"""Scores of logits and of outputs: batch by batch, or in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.objectives.objective import Objective, Sums

# Probabilities that are 0 or 1, as 8 bits may give, have no finite logit.
_TINY = 1e-7


class Scorer:
    """Adds up the scores of a network batch by batch.

    Args:
        objective: What the outputs mean.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective, self._sums = objective, None
        self._labels: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []

    def add(self, tally: Sums, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Adds a batch.

        Args:
            tally: `Objective.tally` of the batch, and the sum of its losses as `loss`.
            labels: Labels of the batch.
            logits: Logits of the batch.
        """
        found = {name: np.asarray(value, np.float64) for name, value in tally.items()}
        self._sums = found if self._sums is None else {name: self._sums[name] + value for name, value in found.items()}
        if self._objective.ranks:
            kept = self._objective.to_rank(np.asarray(labels), np.asarray(logits))
            self._labels.append(kept[0])
            self._logits.append(kept[1])

    def result(self) -> dict[str, Any]:
        """All scores, those of each class as `by_class`, and the loss; empty without any batch."""
        if self._sums is None:
            return {}
        ranked = (np.concatenate(self._labels), np.concatenate(self._logits)) if self._objective.ranks else None
        scores = self._objective.scores(self._sums, ranked)
        each = self._objective.by_class(self._sums, ranked)
        return {
            **scores,
            **({"by_class": each} if each else {}),
            "loss": float(self._sums["loss"] / self._sums["images"]),
        }


def score_arrays(objective: Objective, labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Scores and loss of logits in memory."""
    scorer, logits = Scorer(objective), tf.constant(logits, tf.float64)
    scorer.add(tally_with_loss(objective, tf.constant(labels), logits), labels, logits)
    return scorer.result()


def tally_with_loss(objective: Objective, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, Any]:
    """`Objective.tally` of a batch with the sum of its losses and its number of images."""
    labels = tf.cast(labels, objective.label_dtype)
    return {
        **objective.tally(labels, logits),
        "loss": tf.reduce_sum(tf.cast(objective.losses(labels, logits), tf.float64)),
        "images": tf.cast(tf.shape(logits)[0], tf.float64),
    }


def to_logits(outputs: np.ndarray, activation: str) -> np.ndarray:
    """Undoes the last activation of a network, as far as scores depend on it.

    Args:
        outputs: Outputs of the network.
        activation: Name of its last activation. Only sigmoids are undone: of a softmax, the largest output counts.

    Example:
        >>> to_logits(np.array([[0.5, 1.0]]), "sigmoid").round(1).tolist()
        [[0.0, 16.1]]
    """
    if activation != "sigmoid":
        return outputs
    shares = np.clip(outputs.astype(np.float64), _TINY, 1 - _TINY)
    return np.log(shares / (1 - shares))
