"""The test set that artefacts are scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from tas_tf.deploy.arrays import Arrays, check_lengths, count, listed
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.scoring import score_arrays, to_logits


@dataclasses.dataclass(frozen=True)
class ScoredOn:
    """A test set.

    Attributes:
        images: Images in the artefacts' input format, `[n, height, width, channels]`, or other inputs, `[n, ...]`; of
            several inputs, by name.
        labels: Labels as the objective has them, `[n, ...]`.
        objective: What the outputs mean.
        activations: Name of the networks' last activation by output, in order.
    """

    images: Arrays
    labels: np.ndarray
    objective: Objective
    activations: Mapping[str, str]

    def __post_init__(self) -> None:
        shapes = [one.shape for one in listed(self.images)]
        if min(map(len, shapes)) < 2 or not count(self.images):
            raise UserError(
                "`images` must be [n, height, width, channels], or [n, ...] for other inputs, n > 0. Received: "
                f"{', '.join(map(str, shapes))}."
            )
        check_lengths("images", self.images)
        wanted, labels = (count(self.images), *self.objective.label_shape), self.labels
        are_classes = self.objective.task == Classification.task and not self.objective.weighs
        if labels.shape != wanted or (are_classes and not np.issubdtype(labels.dtype, np.integer)):
            raise UserError(
                f"`labels` must be {'integer classes' if are_classes else 'numbers'} for {self.objective}, "
                f"{list(wanted)}, for the {count(self.images)} images. Received: {labels.dtype} of shape "
                f"{labels.shape}."
            )
        if are_classes and (labels.min() < 0 or labels.max() >= self.objective.num_outputs):
            raise UserError(
                f"`labels` must be from 0 to {self.objective.num_outputs - 1}: the networks have "
                f"{self.objective.num_outputs} classes. Received: {labels.min()} to {labels.max()}."
            )

    def scores(self, outputs: Arrays) -> dict[str, float]:
        """Scores of a network's outputs for the images."""
        return score_arrays(self.objective, self.labels, self._logits(outputs))

    def agreement(self, outputs: Arrays, expected: Arrays) -> float:
        """How well the outputs of two networks agree, 0 to 1."""
        return self.objective.agreement(self._logits(outputs), self._logits(expected))

    def _logits(self, outputs: Arrays) -> np.ndarray:
        """Logits as the objective has them: those of several outputs side by side."""
        if not isinstance(outputs, Mapping):
            (activation,) = self.activations.values()
            return to_logits(outputs, activation)
        found = [to_logits(outputs[name], activation) for name, activation in self.activations.items()]
        return np.concatenate([logits.reshape(len(logits), -1) for logits in found], axis=1)

    @cached_property
    def constant_score(self) -> float:
        """Score of the best constant output."""
        return self.objective.constant_score(self.objective.summary(self.labels))
