"""Streams of a user's images and labels, which are read batch by batch and never kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.user_pipeline import random_changes, steps_of
from tas_tf.errors import UserError

#: The three forms of `(images, labels)` that users may pass as data.
UserData = tf.data.Dataset | keras.utils.PyDataset | tuple[Any, Any]

_BATCH = 128
#: Limits of the buffer that shuffles images: number of images and bytes.
_MIXED, _MIXED_BYTES = 2048, 64 * 2**20


@dataclass(frozen=True, eq=False)
class Stream:
    """Labelled images in batches of any size.

    Attributes:
        argument: Name of the user's argument that holds the data, such as `train`.
        batches: Reads the data once. Its argument is the number of an epoch of training, which has its own order and is
            followed by other ones if the result is repeated; `None` if this isn't training. Returns a finite dataset of
            `(images, labels)` with images `[batch, height, width, channels]` of any number type.
        class_names: Class names that come with the data, if any.
        is_mixed: Whether the order is random over the whole data, so that no further shuffling is needed.
        changes_once: Whether images are changed at random, but only when they are read for the first time.
        changes_anew: Whether images are known to be changed at random each time that they are read.
    """

    argument: str
    batches: Callable[[int | None], tf.data.Dataset]
    class_names: tuple[str, ...] = ()
    is_mixed: bool = False
    changes_once: bool = False
    changes_anew: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return tuple(self.spec[0].shape[1:])

    @property
    def spec(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """Specification of a batch."""
        return self.batches(None).element_spec

    def examples(self, epoch: int | None = None) -> tf.data.Dataset:
        """Yields each `(image, label)` once. Images stay uint8 if they are uint8, and otherwise become float32.

        Args:
            epoch: As for `batches`.
        """
        examples = self.batches(epoch).unbatch()
        return examples.map(lambda image, label: (_as_number_type(image), label), num_parallel_calls=tf.data.AUTOTUNE)

    @property
    def mixed(self) -> int:
        """Number of images in the shuffle buffer."""
        num_bytes = max(1, int(np.prod(self.image_shape)) * self.spec[0].dtype.size)
        return max(1, min(_MIXED, _MIXED_BYTES // num_bytes))


def open_stream(argument: str, data: UserData, *, seed: int = 0) -> Stream:
    """Makes a stream of a user's data.

    Args:
        argument: Name of the data in messages.
        data: A `tf.data.Dataset` of `(images, labels)`, in batches or one by one; a tuple `(images, labels)` of arrays;
            or a `keras.utils.PyDataset`.
        seed: Seed for the order of arrays and of a `PyDataset`'s batches.

    Raises:
        UserError: The data has another form, repeats forever, or doesn't hold pairs of images and labels.
    """
    for kind, open_kind in _KINDS.items():
        if isinstance(data, kind):
            stream = open_kind(argument, data, seed)
            _check_spec(argument, stream.spec)
            return stream
    raise UserError(f"{_expected(argument)}. Received: {type(data).__name__}.")


def _expected(argument: str) -> str:
    return (
        f"`{argument}` must be a `tf.data.Dataset` or a `keras.utils.PyDataset` of (images, labels), or a tuple of two "
        "arrays"
    )


def _open_dataset(argument: str, dataset: tf.data.Dataset, seed: int) -> Stream:
    spec = dataset.element_spec
    _check_pair(argument, spec, tf.TensorSpec)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise endless(argument)
    steps = tuple(steps_of(dataset))
    # Keras gives names to a dataset, and `map` makes another one.
    names = next((step.class_names for step in steps if hasattr(step, "class_names")), ())
    images, labels = spec[0].shape, spec[1].shape
    if images.rank == 3 and labels.rank and images[0] is labels[0] is None:
        dataset = dataset.map(lambda images, labels: (images[..., tf.newaxis], labels))
    elif images.rank == 3 and images[0] is not None:
        dataset = dataset.batch(_BATCH)
    once, anew = random_changes(steps)
    return Stream(argument, lambda _: dataset, tuple(map(str, names)), changes_once=once, changes_anew=anew)


def _open_arrays(argument: str, arrays: tuple, seed: int) -> Stream:
    _check_pair(argument, arrays, object)
    # Arrays aren't copied, so that an array mapped from a file isn't loaded.
    images, labels = (part if isinstance(part, np.ndarray) else np.asarray(part) for part in arrays)
    if not images.ndim or not labels.ndim or len(images) != len(labels):
        raise UserError(
            f"`{argument}` must have one label for each image. Received: images {list(images.shape)} and labels "
            f"{list(labels.shape)}."
        )
    if images.ndim == 3:  # as Keras loads MNIST
        images = images[..., np.newaxis]
    kinds = _tensor_type(images), _tensor_type(labels)

    def pick(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return images[rows], _texts_as_bytes(labels[rows])

    def read(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = tf.numpy_function(pick, [rows], kinds, stateful=False)
        return tuple(
            tf.ensure_shape(part, [None, *whole.shape[1:]]) for part, whole in zip(parts, (images, labels), strict=True)
        )

    def batches(epoch: int | None) -> tf.data.Dataset:
        rows = tf.data.Dataset.range(len(images)).shuffle(
            max(1, len(images)), seed=seed_of_epoch(seed, epoch), reshuffle_each_iteration=epoch is not None
        )
        return rows.batch(_BATCH).map(read, num_parallel_calls=tf.data.AUTOTUNE)

    return Stream(argument, batches, is_mixed=True)


def _open_py_dataset(argument: str, dataset: keras.utils.PyDataset, seed: int) -> Stream:
    if dataset.num_batches is None:
        raise endless(argument)
    if not dataset.num_batches:
        raise empty(argument)
    first = dataset[0]
    _check_pair(argument, first, object)
    arrays = tuple(map(np.asarray, first))
    rng = np.random.default_rng(seed)
    spec = tuple(tf.TensorSpec([None, *array.shape[1:]], _tensor_type(array)) for array in arrays)

    def read(training: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.arange(dataset.num_batches)
        if training:
            dataset.on_epoch_begin()
            rng.shuffle(order)
        for number in order:
            images, labels = dataset[int(number)]
            yield np.asarray(images), _texts_as_bytes(np.asarray(labels))
        if training:
            dataset.on_epoch_end()

    return Stream(
        argument,
        lambda epoch: tf.data.Dataset.from_generator(lambda: read(epoch is not None), output_signature=spec),
    )


_KINDS = {
    tf.data.Dataset: _open_dataset,
    keras.utils.PyDataset: _open_py_dataset,
    (tuple, list): _open_arrays,
}


def seed_of_epoch(seed: int, epoch: int | None) -> int:
    """Seed of the order in which data is read from an epoch of training on, or apart from training."""
    return seed if not epoch else int(np.random.default_rng([seed, epoch]).integers(2**31))


def endless(argument: str) -> UserError:
    """The error for data that repeats forever."""
    return UserError(f"{_expected(argument)}, and must end. Received data that repeats forever: leave out `repeat`.")


def empty(argument: str) -> UserError:
    """The error for data without any example."""
    return UserError(f"{_expected(argument)}, with at least one image. Received empty data.")


def _check_pair(argument: str, pair: Any, kind: type) -> None:
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(part, kind) for part in pair)):
        if isinstance(pair, (tuple, list)):
            received = f"{len(pair)} parts ({', '.join(type(part).__name__ for part in pair)})"
        else:
            received = f"{type(pair).__name__}"
        raise UserError(
            f"{_expected(argument)}: one array of images and one of labels, without sample weights. "
            f"Received elements of {received}."
        )


def _check_spec(argument: str, spec: tuple[tf.TensorSpec, tf.TensorSpec]) -> None:
    images, labels = spec
    numeric = images.dtype.is_integer or images.dtype.is_floating
    known = labels.dtype.is_integer or labels.dtype.is_floating or labels.dtype in (tf.string, tf.bool)
    sized = images.shape.rank == 4 and labels.shape.rank and None not in (*images.shape[1:], *labels.shape[1:])
    if not (sized and numeric and known):
        raise UserError(
            f"{_expected(argument)}: images [batch, height, width, channels] of one size, and labels [batch] or "
            f"[batch, ...] of one size. Received: {_describe(images)} and {_describe(labels)}."
        )


def _as_number_type(images: tf.Tensor) -> tf.Tensor:
    """Keeps uint8 images, which augmentation may need; converts all others to float32."""
    return images if images.dtype == tf.uint8 else tf.cast(images, tf.float32)


def _describe(spec: tf.TensorSpec) -> str:
    return f"{spec.dtype.name} {list(spec.shape) if spec.shape.rank is not None else 'of unknown shape'}"


def _tensor_type(array: np.ndarray) -> tf.DType:
    return tf.string if array.dtype.kind in "USO" else tf.as_dtype(array.dtype)


def _texts_as_bytes(labels: np.ndarray) -> np.ndarray:
    """Converts text labels to bytes, as TensorFlow expects them from NumPy."""
    if labels.dtype.kind not in "UO":
        return labels
    texts = [label if isinstance(label, bytes) else str(label).encode() for label in labels.reshape(-1)]
    return np.array(texts, dtype=object).reshape(labels.shape)
