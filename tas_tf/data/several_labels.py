"""Labels of several outputs, and labels with weights of images: packed into one vector, as objectives have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.data.labels import Labels, make_single_labels
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.several import Several


class _Weighed(Labels):
    """Labels with weights of images, in the data or in the objective: left out, or 1, where the other one has none.

    Args:
        base: Form of the labels.
        objective: What the output means, with weights or without.
        given: Whether the data have weights.
    """

    def __init__(self, base: Labels, objective: Objective, *, given: bool) -> None:
        super().__init__(base.argument, objective, base.known)
        self._base, self._given = base, given
        self.are_classes = base.are_classes

    def values(self, labels: Any) -> np.ndarray:
        if not self._given:
            return self._base.values(labels)
        labels, weights = labels
        flat = np.asarray(weights, np.float64).reshape(-1)
        if flat.size != len(labels) or not np.isfinite(flat).all() or flat.min() < 0:
            raise UserError(
                f"`{self.argument}` must have sample weights of at least 0, one for each image. Received: "
                f"{list(weights.shape)} from {flat.min()} to {flat.max()}."
            )
        return self._base.values(labels)

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        return self._base.class_names(counts)

    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        self._base.check_known(counts, names)

    def summary(self, values: np.ndarray) -> np.ndarray:
        return self._base.summary(values)

    def convert(self, label: Any, names: Sequence[str]) -> tf.Tensor:
        label, weight = label if self._given else (label, tf.ones([]))
        own = self._base.convert(label, names)
        if not self.objective.weighs:
            return own
        own = tf.cast(tf.reshape(own, [-1]), tf.float32)
        return tf.concat([own, tf.cast(tf.reshape(weight, [1]), tf.float32)], axis=0)


class _Several(Labels):
    """Labels of several outputs.

    Args:
        objective: What the outputs mean.
        parts: Form of each output's labels.
    """

    are_classes = False

    def __init__(self, argument: str, objective: Several, parts: Sequence[Labels]) -> None:
        super().__init__(argument, objective)
        self._parts = parts

    def values(self, labels: Any) -> Sequence[np.ndarray]:
        found = [part.values(own) for part, own in zip(self._parts, labels, strict=True)]
        for part, values in zip(self._parts, found, strict=True):
            if part.are_classes:
                part.check_known(dict.fromkeys(values.tolist(), 1), ())
        return found

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        return ()

    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        del counts, names  # checked value by value

    def summary(self, values: Sequence[np.ndarray]) -> np.ndarray:
        rows = [part.summary(own).reshape(len(own), -1) for part, own in zip(self._parts, values, strict=True)]
        return np.concatenate(rows, axis=1).astype(np.float64)

    def convert(self, label: Any, names: Sequence[str]) -> tf.Tensor:
        converted = [part.convert(own, ()) for part, own in zip(self._parts, label, strict=True)]
        return tf.concat([tf.cast(tf.reshape(one, [-1]), tf.float32) for one in converted], axis=0)


def weighed(objective: Objective, spec: Any) -> Objective:
    """Adds weights of images to an objective, if labels have them.

    Args:
        objective: What the outputs mean.
        spec: Specification of a batch of labels, as `Form.arrange` returns them.
    """
    if isinstance(objective, Several):
        pairs = zip(objective.parts, spec, strict=True)
        return Several.of([replace(part, objective=weighed(part.objective, one)) for part, one in pairs])
    return replace(objective, weighs=isinstance(spec, tuple))


def all_weighed(objective: Objective) -> Objective:
    """Adds weights of images to an objective, for each output."""
    if isinstance(objective, Several):
        return Several.of([replace(part, objective=all_weighed(part.objective)) for part in objective.parts])
    return replace(objective, weighs=True)


def with_weights(objective: Objective, labels: tf.Tensor) -> tf.Tensor:
    """Puts weights behind the labels of each output.

    Args:
        objective: What the outputs mean, with weights of images.
        labels: Flat labels of all outputs, one after another, and one weight, float32 `[batch, labels + 1]`.

    Returns:
        Labels as `objective` has them.
    """
    if not isinstance(objective, Several):
        return labels
    sizes = [part.num_labels - 1 for part in objective.parts]
    *own, weight = tf.split(labels, [*sizes, 1], axis=1)
    return tf.concat([each for part in own for each in (part, weight)], axis=1)


def make_labels(argument: str, spec: Any, objective: Objective, known: Sequence[str] = ()) -> Labels:
    """Recognises the form of labels from the types and shapes of a batch.

    Args:
        argument: Name of the data in messages.
        spec: Specification of a batch of labels, as `Form.arrange` returns them.
        objective: What the outputs of the network mean.
        known: Names of the classes that come with the data, if any.

    Raises:
        UserError: The labels don't suit the objective.
    """
    if isinstance(objective, Several):
        parts = []
        for part, one in zip(objective.parts, spec, strict=True):
            label = one[0] if isinstance(one, tuple) else one
            if label.dtype == tf.string:
                raise UserError(
                    f"`{argument}` must have numbers as labels for `{part.name}`, since there are several outputs. "
                    "Received: text."
                )
            # Messages put the name into backticks: "`train` for `angle` must have finite labels."
            parts.append(make_labels(f"{argument}` for `{part.name}", one, part.objective))
        return _Several(argument, objective, parts)
    given = isinstance(spec, tuple)
    base = make_single_labels(argument, spec[0] if given else spec, replace(objective, weighs=False), known)
    return _Weighed(base, objective, given=given) if given or objective.weighs else base
