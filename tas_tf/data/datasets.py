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
        images, labels = _read(argument, dataset)
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(
                f"`{argument}` must have labels from 0 to {num_classes - 1}, one for each class of the network. "
                f"Received: {labels.min()} to {labels.max()}."
            )
        parts[argument] = images, labels
    return make_array_source(name, [str(number) for number in range(num_classes)], flip_ok=True, **parts)


def _read(argument: str, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
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
        dataset = dataset.batch(256)
    batches = list(dataset.as_numpy_iterator())
    if not batches:
        raise UserError(f"{expected}. Received an empty one.")
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    if images.ndim != 4 or labels.ndim not in (1, 2) or not np.issubdtype(images.dtype, np.number):
        raise UserError(
            f"{expected}: [batch, height, width, channels] and [batch] or [batch, classes]. Received: {images.dtype} "
            f"{list(images.shape)} and {list(labels.shape)}."
        )
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    labels = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    return images, labels.astype(np.int64)
