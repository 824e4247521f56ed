"""Converts a user's labels, which are whole numbers, one-hot rows or texts, to class numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError


class Labels(ABC):
    """One form of labels.

    Args:
        argument: Name of the data in messages.
        num_classes: Number of classes of the network.
        known: Names of the classes 0, 1, ... that come with the data, if any.
    """

    def __init__(self, argument: str, num_classes: int, known: Sequence[str] = ()) -> None:
        self.argument, self.num_classes, self.known = argument, num_classes, tuple(known)

    @abstractmethod
    def values(self, labels: np.ndarray) -> np.ndarray:
        """Checks a batch of labels and returns one class number or class name for each, `[batch]`."""

    @abstractmethod
    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        """Checks the classes found, given the number of images of each, and returns all class names of the network."""

    @abstractmethod
    def check_known(self, counts: Mapping[int | str, int], names: Sequence[str]) -> None:
        """Checks that all classes found are among `names`."""

    @abstractmethod
    def number(self, label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        """Returns the class number of one label, an int64 scalar; the name of class `i` is `names[i]`."""


class _Numbered(Labels):
    """Labels that hold class numbers in any form."""

    def class_names(self, counts: Mapping[int | str, int]) -> tuple[str, ...]:
        if min(counts) < 0 or max(counts) >= self.num_classes:
            raise UserError(
                f"`{self.argument}` must have labels from 0 to {self.num_classes - 1}, one for each class of the "
                f"network. Received: {min(counts)} to {max(counts)}."
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


class _Names(Labels):
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


def make_labels(argument: str, spec: tf.TensorSpec, num_classes: int, known: Sequence[str] = ()) -> Labels:
    """Recognises the form of labels from the type and shape of a batch.

    Args:
        argument: Name of the data in messages.
        spec: Specification of a batch of labels, `[batch]` or `[batch, n]`.
        num_classes: Number of classes of the network.
        known: Names of the classes that come with the data, if any.
    """
    if spec.dtype == tf.string:
        return _Names(argument, num_classes, known)
    is_column = spec.shape.rank == 1 or spec.shape[1] == 1
    return (_Numbers if is_column else _OneHot)(argument, num_classes, known)
