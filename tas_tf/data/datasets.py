"""A source of a user's own `tf.data` datasets."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tas_tf.data.source import ArraySource, make_array_source
from tas_tf.errors import UserError


def source_of_datasets(
    train: tf.data.Dataset, test: tf.data.Dataset, *, num_classes: int, name: str = "data"
) -> ArraySource:
    """Reads two datasets into memory, once.

    Args:
        train: Batches `(images, labels)`, images `[batch, height, width, channels]` as the network takes them, uint8 or
            float32, labels class numbers `[batch]` or one-hot `[batch, classes]`; or single examples. Best without
            augmentation: what is random in it is drawn once.
        test: The same, of other images.
        num_classes: Classes that the network tells apart.
        name: Of the data, for messages.

    Raises:
        UserError: A dataset is empty or endless, or doesn't hold such pairs.
    """
    parts = {}
    for argument, dataset in (("train", train), ("test", test)):
        images, labels = _read(argument, dataset, num_classes)
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(
                f"`{argument}` must have labels from 0 to {num_classes - 1}, one for each class of the network. "
                f"Received: {labels.min()} to {labels.max()}."
            )
        parts[argument] = images, labels
    shapes = [images.shape[1:] for images, _ in parts.values()]
    if shapes[0] != shapes[1]:
        raise UserError(f"`test` must have images as `train` has, {shapes[0]}. Received: {shapes[1]}.")
    return make_array_source(name, [str(number) for number in range(num_classes)], flip_ok=True, **parts)


def _read(argument: str, dataset: tf.data.Dataset, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    expected = f"`{argument}` must be a `tf.data.Dataset` of (images, labels)"
    if not isinstance(dataset, tf.data.Dataset):
        raise UserError(f"{expected}. Received: {type(dataset).__name__}.")
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2 and all(isinstance(part, tf.TensorSpec) for part in spec)):
        raise UserError(f"{expected}. Received elements: {spec}.")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError(f"{expected} that ends. Received one that repeats for ever: leave out `repeat`.")
    # Labels of single examples have no axis or, one-hot, one of known size; a batch's size is unknown.
    if spec[0].shape.rank == 3 and None not in (*spec[0].shape, *spec[1].shape):
        dataset, spec = dataset.batch(256), dataset.batch(256).element_spec
    sizes, numeric = spec[0].shape, all(part.dtype.is_integer or part.dtype.is_floating for part in spec)
    if sizes.rank != 4 or spec[1].shape.rank not in (1, 2) or None in sizes[1:] or not numeric:
        raise UserError(
            f"{expected}: numbers, [batch, height, width, channels] of one size and [batch] or [batch, classes]. "
            f"Received: {_describe(spec[0])} and {_describe(spec[1])}."
        )
    batches = list(dataset.as_numpy_iterator())
    if not batches:
        raise UserError(f"{expected}. Received an empty one.")
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    if not np.isfinite(images).all():
        raise UserError(f"`{argument}` must have finite images. Received: NaN or infinity.")
    return images, _class_numbers(argument, labels, num_classes)


def _describe(spec: tf.TensorSpec) -> str:
    return f"{spec.dtype.name} {list(spec.shape) if spec.shape.rank is not None else 'of unknown shape'}"


def _class_numbers(argument: str, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels as class numbers, whether they are that, in a column or not, or one-hot."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()
        if labels.shape[1] != num_classes or not one_hot:
            raise UserError(
                f"`{argument}` must have class numbers as labels, or one-hot ones, [batch, {num_classes}], each with a "
                f"single 1. Received: {list(labels.shape)}, sums from {labels.sum(1).min()} to {labels.sum(1).max()}."
            )
        return labels.argmax(1).astype(np.int64)
    labels = labels.reshape(-1)
    if not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
        raise UserError(f"`{argument}` must have whole numbers as labels. Received: {labels.dtype}, others among them.")
    return labels.astype(np.int64)
