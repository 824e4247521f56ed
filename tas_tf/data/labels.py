"""Converts a user's labels to the form that a network's objective has: class numbers, decisions or values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.regression import Regression


class Labels(ABC):
    """One form of labels.

    Args:
        argument: Name of the data in messages.
        objective: What the outputs of the network mean.
        known: Names of the classes 0, 1, ... that come with the data, if any.
    """

    #: Whether each image has a single class, so that classes can be counted.
    are_classes = True

    def __init__(self, argument: str, objective: Objective, known: Sequence[str] = ()) -> None:
        self.argument, self.objective, self.known = argument, objective, tuple(known)

    @property
    def num_classes(self) -> int:
        """Number of classes, two for a single decision."""
        return max(2, self.objective.num_outputs)

    @abstractmethod
    def values(self, labels: np.ndarray) -> np.ndarray:
        """Checks a batch of labels and returns them as numbers or class names, `[batch, ...]`."""

    @abstractmethod
    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        """Checks the classes found, given the number of images of each, and returns all class names of the network."""

    @abstractmethod
    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        """Checks that all classes found are among `names`."""

    def summary(self, values: np.ndarray) -> np.ndarray:
        """What the best constant output depends on, of a batch of `values`; see `Objective.summary`."""
        return self.objective.summary(values)

    @abstractmethod
    def convert(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        """Returns one label as the objective has it; the name of class `i` is `names[i]`."""


class _Classes(Labels):
    """Labels that say to which class an image belongs."""

    def convert(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        number = self.number(label, names)
        if self.objective.label_shape:  # a single decision, yes for the second class
            return tf.cast(tf.reshape(number, self.objective.label_shape), self.objective.label_dtype)
        return number

    @abstractmethod
    def number(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        """Returns the class number of one label, an int64 scalar."""


class _Numbered(_Classes):
    """Labels that hold class numbers in any form."""

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        numbers = [int(number) for number in counts]
        if min(numbers) < 0 or max(numbers) >= self.num_classes:
            raise UserError(
                f"`{self.argument}` must have labels from 0 to {self.num_classes - 1}, one for each class of the "
                f"network. Received: {min(numbers)} to {max(numbers)}."
            )
        return self.known if len(self.known) == self.num_classes else tuple(map(str, range(self.num_classes)))

    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        self.class_names(counts)


class _Numbers(_Numbered):
    """Class numbers, one for each image, `[batch]` or `[batch, 1]`."""

    def values(self, labels: np.ndarray) -> np.ndarray:
        flat = labels.reshape(-1)
        if not (np.isfinite(flat).all() and (flat == np.round(flat)).all()):
            raise UserError(
                f"`{self.argument}` must have whole numbers as labels. Received: {labels.dtype} with other values."
            )
        return flat.astype(np.int64)

    def number(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        return tf.cast(tf.reshape(label, []), tf.int64)


class _OneHot(_Numbered):
    """Rows with a single 1."""

    def values(self, labels: np.ndarray) -> np.ndarray:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        if labels.shape[1] != self.num_classes or not one_hot:
            raise UserError(
                f"`{self.argument}` must have class numbers as labels, or one-hot ones, [batch, {self.num_classes}], "
                f"each with a single 1. Received: {list(labels.shape)}, sums from {labels.sum(1).min()} to "
                f"{labels.sum(1).max()}."
            )
        return labels.argmax(1).astype(np.int64)

    def number(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        return tf.argmax(tf.cast(label, tf.float32), output_type=tf.int64)


class _Names(_Classes):
    """Texts. Classes are sorted by name, as in Keras's utilities."""

    def values(self, labels: np.ndarray) -> np.ndarray:
        return np.array([label.decode() for label in labels.reshape(-1)], dtype=object)

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        names = sorted(counts)
        if len(names) != self.num_classes:
            some = ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
            raise UserError(
                f"`{self.argument}` must have as many different labels as the network has classes, {self.num_classes}. "
                f"Received: {len(names)} ({some})."
            )
        return tuple(names)

    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        unknown = sorted(set(counts) - set(names))
        if unknown:
            raise UserError(
                f"`{self.argument}` must have labels that `train` has. Received: {', '.join(map(repr, unknown[:5]))}."
            )

    def number(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        return tf.argmax(tf.cast(tf.constant(names) == tf.reshape(label, []), tf.int32), output_type=tf.int64)


class _Numeric(Labels):
    """Numbers that are no classes of images: several decisions, values, or anything per pixel."""

    are_classes = False

    def values(self, labels: np.ndarray) -> np.ndarray:
        numbers = self._as_numbers(labels).reshape(len(labels), *self.objective.label_shape)
        self._check(numbers)
        return numbers.astype(self.objective.label_dtype.as_numpy_dtype)

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        return self.known if len(self.known) == self.num_classes else tuple(map(str, range(self.objective.num_outputs)))

    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        del counts, names  # checked value by value

    def convert(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        return tf.cast(tf.reshape(self._chosen(label), self.objective.label_shape), self.objective.label_dtype)

    def _as_numbers(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def _chosen(self, label: tf.Tensor) -> tf.Tensor:
        return label

    def _check(self, numbers: np.ndarray) -> None:
        if not np.isfinite(numbers).all():
            raise UserError(f"`{self.argument}` must have finite labels. Received: NaN or infinity.")


class _Decisions(_Numeric):
    """Labels from 0, no, to 1, yes."""

    def _check(self, numbers: np.ndarray) -> None:
        super()._check(numbers)
        if numbers.min() < 0 or numbers.max() > 1:
            raise UserError(
                f"`{self.argument}` must have labels from 0 (no) to 1 (yes) for {self.objective}. "
                f"Received: {numbers.min()} to {numbers.max()}."
            )


class _ClassesOfPixels(_Numeric):
    """A class number for each pixel."""

    def _check(self, numbers: np.ndarray) -> None:
        super()._check(numbers)
        if numbers.min() < 0 or numbers.max() >= self.num_classes or (numbers != np.round(numbers)).any():
            raise UserError(
                f"`{self.argument}` must have whole numbers from 0 to {self.num_classes - 1} as labels of pixels, one "
                f"for each class of the network. Received: {numbers.dtype} from {numbers.min()} to {numbers.max()}."
            )


class _OneHotPixels(_ClassesOfPixels):
    """A row with a single 1 for each pixel."""

    def _as_numbers(self, labels: np.ndarray) -> np.ndarray:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all()):
            raise UserError(f"`{self.argument}` must have one-hot labels of pixels, each with a single 1.")
        return labels.argmax(-1)

    def _chosen(self, label: tf.Tensor) -> tf.Tensor:
        return tf.argmax(tf.cast(label, tf.float32), axis=-1)


def make_single_labels(argument: str, spec: tf.TensorSpec, objective: Objective, known: Sequence[str] = ()) -> Labels:
    """Recognises the form of the labels of one output from the type and shape of a batch.

    Args:
        argument: Name of the data in messages.
        spec: Specification of a batch of labels, `[batch]` or `[batch, ...]`.
        objective: What the outputs of the network mean.
        known: Names of the classes that come with the data, if any.

    Raises:
        UserError: The labels don't suit the objective.
    """
    shape = tuple(spec.shape[1:])
    one_class = objective.task in (Classification.task, Binary.task) and not objective.positions
    if spec.dtype == tf.string:
        if not one_class:
            raise _unsuitable(argument, spec, objective)
        return _Names(argument, objective, known)
    if one_class and (objective.task == Classification.task or spec.dtype.is_integer or spec.dtype.is_bool):
        if len(shape) > 1:
            raise _unsuitable(argument, spec, objective)
        return (_Numbers if shape in ((), (1,)) else _OneHot)(argument, objective, known)
    wanted = objective.label_shape
    if objective.task == Classification.task:
        if shape == (*wanted, objective.num_outputs) and objective.num_outputs > 1:
            return _OneHotPixels(argument, objective, known)
        kind: type[Labels] = _ClassesOfPixels
    else:
        kind = _Numeric if objective.task == Regression.task else _Decisions
    # An axis of size 1 may be missing or added.
    if tuple(side for side in shape if side != 1) != tuple(side for side in wanted if side != 1):
        raise _unsuitable(argument, spec, objective)
    return kind(argument, objective, known)


def _unsuitable(argument: str, spec: tf.TensorSpec, objective: Objective) -> UserError:
    return UserError(
        f"`{argument}` must have labels for {objective}, {['batch', *objective.label_shape]}. Received: "
        f"{spec.dtype.name} {['batch', *spec.shape[1:]]}. Is it another `task`?".replace("'", "")
    )
