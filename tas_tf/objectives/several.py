"""Several outputs at once: their labels and logits lie side by side in one tensor each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tas_tf.objectives.objective import Objective, Sums


@dataclass(frozen=True)
class Part:
    """One of several outputs.

    Attributes:
        name: Name of the output.
        objective: What it means.
        weight: Weight of its loss.
    """

    name: str
    objective: Objective
    weight: float = 1.0

    @property
    def num_labels(self) -> int:
        """Numbers in the label of an image."""
        return math.prod(self.objective.label_shape)


@dataclass(frozen=True)
class Several(Objective):
    """Several outputs, each with a kind of its own.

    Labels and logits are those of the outputs, flattened, side by side: float32 `[batch, labels]` and
    `[batch, outputs]`. Losses are added up with the weights of the outputs. The score is the mean quality of the
    outputs: of each one its own score, or of values the share of the variance explained.

    Attributes:
        parts: The outputs, in order.

    Example:
        >>> from tas_tf.objectives.classification import Classification
        >>> from tas_tf.objectives.regression import Regression
        >>> both = Several.of([Part("kind", Classification(3)), Part("size", Regression(1), weight=0.5)])
        >>> labels, logits = tf.constant([[2.0, 7.0]]), tf.constant([[0.0, 0.0, 100.0, 5.0]])
        >>> both.losses(labels, logits).numpy().tolist()
        [2.0]
    """

    parts: tuple[Part, ...] = ()

    task, metric, activation = "several", "mean_score", "linear"

    @classmethod
    def of(cls, parts: list[Part]) -> Self:
        """Puts outputs together."""
        return cls(sum(part.objective.num_values for part in parts), parts=tuple(parts))

    @property
    def ranks(self) -> bool:
        """Whether any output's scores need the order of all images."""
        return any(part.objective.ranks for part in self.parts)

    @property
    def has_positions(self) -> bool:
        """Whether any output is per pixel."""
        return any(part.objective.has_positions for part in self.parts)

    @property
    def noun(self) -> str:
        """Names of the outputs and what they are."""
        return ", ".join(f"{part.name} ({part.objective.outputs_in_words})" for part in self.parts)

    @property
    def _label_shape(self) -> tuple[int, ...]:
        return (sum(part.num_labels for part in self.parts),)

    @property
    def progress_name(self) -> str:
        """Accuracy, if any output has one."""
        return self._shown[0].objective.progress_name

    @property
    def _shown(self) -> list[Part]:
        """The outputs whose progress is averaged: accuracies if there are any, since errors have units."""
        return [part for part in self.parts if part.objective.progress_name == "accuracy"] or list(self.parts)

    def labels_of(self, labels: tf.Tensor) -> Iterator[tuple[Part, tf.Tensor]]:
        """Takes labels apart, each in the form that its output has."""
        sizes = [part.num_labels for part in self.parts]
        for part, own in zip(self.parts, tf.split(labels, sizes, axis=1), strict=True):
            objective = part.objective
            yield part, tf.cast(tf.reshape(own, [-1, *objective.label_shape]), objective.label_dtype)

    def logits_of(self, logits: tf.Tensor) -> list[tf.Tensor]:
        """Takes logits apart."""
        objectives = [part.objective for part in self.parts]
        split = tf.split(logits, [one.num_values for one in objectives], axis=1)
        return [
            tf.reshape(own, [-1, *one.positions, one.num_outputs]) for one, own in zip(objectives, split, strict=True)
        ]

    def _apart(self, labels: tf.Tensor, logits: tf.Tensor) -> Iterator[tuple[Part, tf.Tensor, tf.Tensor]]:
        for (part, own), outputs in zip(self.labels_of(labels), self.logits_of(logits), strict=True):
            yield part, own, outputs

    def standard_losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Losses of all outputs, added up with their weights."""
        return tf.add_n(
            [part.weight * part.objective.losses(own, outputs) for part, own, outputs in self._apart(labels, logits)]
        )

    def divergences(self, wanted: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
        """Distances of all outputs from the teacher's, added up with their weights."""
        pairs = zip(self.parts, self.logits_of(wanted), self.logits_of(logits), strict=True)
        return tf.add_n(
            [part.weight * part.objective.divergences(theirs, own, temperature) for part, theirs, own in pairs]
        )

    def training_losses(
        self,
        labels: tf.Tensor,
        logits: tf.Tensor,
        wanted: tf.Tensor | None = None,
        *,
        alpha: float | tf.Tensor = 0.0,
        temperature: float = 1.0,
    ) -> tf.Tensor:
        """The same of each output, with its weights of images, added up."""
        teachers = [None] * len(self.parts) if wanted is None else self.logits_of(wanted)
        options = {"alpha": alpha, "temperature": temperature}
        return tf.add_n(
            [
                part.weight * part.objective.training_losses(own, outputs, teacher, **options)
                for (part, own, outputs), teacher in zip(self._apart(labels, logits), teachers, strict=True)
            ]
        )

    def scaled(self, labels: np.ndarray, weight: float = 1.0) -> Self:
        """Scales each output by itself: otherwise large values would leave nothing for the others."""
        return self.of(
            [replace(part, objective=part.objective.scaled(own, part.weight)) for part, own in self._summaries(labels)]
        )

    def _progress(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The mean over outputs of their own: of accuracies, if there are any."""
        shown = [
            tf.cast(part.objective.progress(own, outputs), tf.float32)
            for part, own, outputs in self._apart(labels, logits)
            if part in self._shown
        ]
        return tf.add_n(shown) / len(shown)

    def _tally(self, labels: tf.Tensor, logits: tf.Tensor) -> Sums:
        """Sums of all outputs, with their names."""
        return {
            f"{part.name}/{name}": value
            for part, own, outputs in self._apart(labels, logits)
            for name, value in part.objective.tally(own, outputs).items()
        }

    @property
    def _ranking(self) -> Several:
        """The outputs whose scores need all images at once, without weights of images."""
        ranking = [part for part in self.parts if part.objective.ranks]
        return Several.of([replace(part, objective=replace(part.objective, weighs=False)) for part in ranking])

    def to_rank(self, labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and logits of the outputs that rank, side by side: others, such as masks, may be large."""
        apart = self._apart(tf.convert_to_tensor(labels), tf.convert_to_tensor(logits))
        kept = [
            part.objective.to_rank(np.asarray(own), np.asarray(outputs))
            for part, own, outputs in apart
            if part.objective.ranks
        ]
        own, outputs = (np.concatenate(each, axis=1) for each in zip(*kept, strict=True))
        return own, outputs

    def apart_by_name(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Labels and logits of each output, by name."""
        apart = self._apart(tf.convert_to_tensor(labels), tf.convert_to_tensor(logits))
        return {part.name: (np.asarray(own), np.asarray(outputs)) for part, own, outputs in apart}

    def scores(self, sums: Mapping[str, np.ndarray], ranked: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
        """The mean quality, and all scores of each output with its name before them, such as `age_mae`."""
        apart = {} if ranked is None else self._ranking.apart_by_name(*ranked)
        found: dict[str, Any] = {}
        qualities = []
        for part in self.parts:
            start = f"{part.name}/"
            mine = {name.removeprefix(start): value for name, value in sums.items() if name.startswith(start)}
            scores = part.objective.scores(mine, apart.get(part.name))
            qualities.append(part.objective.quality(scores))
            found |= {f"{part.name}_{name}": value for name, value in scores.items()}
            if each := part.objective.by_class(mine, apart.get(part.name)):
                found[f"{part.name}_by_class"] = each
        return {"mean_score": float(np.mean(qualities)), **found}

    def told_apart(self, metrics: Mapping[str, float]) -> str:
        """The mean quality, and the score of each output."""
        own = [
            f"{part.name}: {part.objective.told(metrics[f'{part.name}_{part.objective.metric}'])}"
            for part in self.parts
        ]
        return f"{super().told_apart(metrics)} ({', '.join(own)})"

    def constant_score(self, labels: np.ndarray) -> float:
        """The mean quality of the best constants."""
        return float(np.mean([part.objective.constant_quality(own) for part, own in self._summaries(labels)]))

    def _summaries(self, labels: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
        """Takes summaries of labels apart."""
        bounds = np.cumsum(self._summary_sizes())[:-1]
        yield from zip(self.parts, np.split(labels, bounds, axis=1), strict=True)

    def _summary(self, labels: np.ndarray) -> np.ndarray:
        """Summaries of all outputs side by side, `[batch, numbers]`."""
        return np.concatenate(
            [
                part.objective.summary(np.asarray(own)).reshape(len(labels), -1)
                for part, own in self.labels_of(tf.convert_to_tensor(labels))
            ],
            axis=1,
        ).astype(np.float64)

    def _summary_sizes(self) -> list[int]:
        """Numbers in the summary of each output."""
        label = tf.zeros([1, *self.label_shape])
        return [part.objective.summary(np.asarray(own)).size for part, own in self.labels_of(label)]

    def agreement(self, logits: np.ndarray, expected: np.ndarray) -> float:
        """The mean agreement of the outputs."""
        pairs = zip(
            self.parts, *(self.logits_of(tf.convert_to_tensor(each)) for each in (logits, expected)), strict=True
        )
        return float(
            np.mean([part.objective.agreement(np.asarray(mine), np.asarray(wanted)) for part, mine, wanted in pairs])
        )
