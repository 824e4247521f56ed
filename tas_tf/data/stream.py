"""Streams of a user's images and labels, which are read batch by batch and never kept in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.form import Form
from tas_tf.data.order import Epoch, seed_of_epoch
from tas_tf.data.user_pipeline import random_changes, steps_of
from tas_tf.errors import UserError

#: The three forms of `(images, labels)` that users may pass as data; weights of images may follow.
UserData: TypeAlias = tf.data.Dataset | keras.utils.PyDataset | tuple[Any, ...]

_BATCH = 128
#: Limits of the buffer that shuffles images: number of images and bytes.
_MIXED, _MIXED_BYTES = 2048, 64 * 2**20


@dataclass(frozen=True, eq=False)
class Stream:
    """Labelled images in batches of any size.

    Attributes:
        argument: Name of the user's argument that holds the data, such as `train`.
        batches: Reads the data once. Its argument is the number of an epoch of training, which has its own order;
            `None` if this isn't training. Returns a finite dataset of `(images, labels)` as `Form.arrange` returns
            them, with images `[batch, height, width, channels]` of any number type.
        form: What the network takes and returns.
        class_names: Class names that come with the data, if any.
        is_mixed: Whether the order is random over the whole data, so that no further shuffling is needed.
        changes_once: Whether images are changed at random, but only when they are read for the first time.
        changes_anew: Whether images are known to be changed at random each time that they are read.
        is_told: Whether the data is told of the ends of epochs and may be other data afterwards.
    """

    argument: str
    batches: Callable[[Epoch], tf.data.Dataset]
    form: Form
    class_names: tuple[str, ...] = ()
    is_mixed: bool = False
    changes_once: bool = False
    changes_anew: bool = False
    is_told: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of an example of each input."""
        return tuple(tuple(spec.shape[1:]) for spec in tf.nest.flatten(self.spec[0]))

    @property
    def image_type(self) -> tf.DType:
        """Type of the images."""
        return tf.nest.flatten(self.spec[0])[self.form.image].dtype

    @property
    def spec(self) -> tuple[Any, Any]:
        """Specification of a batch."""
        return self.batches(None).element_spec

    def examples(self, epoch: Epoch = None) -> tf.data.Dataset:
        """Yields each `(image, label)` once. Images stay uint8 if they are uint8, and otherwise become float32.

        Args:
            epoch: As for `batches`.
        """
        examples = self.batches(epoch).unbatch()
        return examples.map(
            lambda image, label: (tf.nest.map_structure(_as_number_type, image), label),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    @property
    def mixed(self) -> int:
        """Number of images in the shuffle buffer."""
        num_bytes = sum(math.prod(spec.shape[1:]) * spec.dtype.size for spec in tf.nest.flatten(self.spec[0]))
        return max(1, min(_MIXED, _MIXED_BYTES // max(1, num_bytes)))


def open_stream(argument: str, data: UserData, form: Form, *, seed: int = 0) -> Stream:
    """Makes a stream of a user's data.

    Args:
        argument: Name of the data in messages.
        data: A `tf.data.Dataset` of `(images, labels)`, in batches or one by one; a tuple `(images, labels)` of arrays;
            or a `keras.utils.PyDataset`. Several inputs or outputs are in a dictionary or list.
        form: What the network takes and returns.
        seed: Seed for the order of arrays and of a `PyDataset`'s batches.

    Raises:
        UserError: The data has another form, repeats forever, or doesn't hold pairs of images and labels.
    """
    for kind, open_kind in _KINDS.items():
        if isinstance(data, kind):
            stream = open_kind(argument, data, form, seed)
            _check_spec(argument, stream)
            return stream
    raise UserError(f"{_expected(argument)}. Received: {type(data).__name__}.")


def _expected(argument: str) -> str:
    return (
        f"`{argument}` must be a `tf.data.Dataset` or a `keras.utils.PyDataset` of (images, labels), or a tuple of two "
        "arrays"
    )


def _open_dataset(argument: str, dataset: tf.data.Dataset, form: Form, seed: int) -> Stream:
    spec = _arranged(argument, dataset.element_spec, form, tf.TensorSpec)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise endless(argument)
    steps = tuple(steps_of(dataset))
    # Keras gives names to a dataset, and `map` makes another one.
    names = next((step.class_names for step in steps if hasattr(step, "class_names")), ())
    if len(dataset.element_spec) > 2 or not all(isinstance(part, tf.TensorSpec) for part in dataset.element_spec):
        dataset = dataset.map(lambda *element: form.arrange(argument, element))
    images, labels = tf.nest.flatten(spec[0])[form.image].shape, tf.nest.flatten(spec[1])[0].shape
    rank = len(form.shapes[form.image])
    if images.rank == rank and labels.rank and images[0] is labels[0] is None and not form.is_packed:
        dataset = dataset.map(lambda images, labels: (images[..., tf.newaxis], labels))
    elif images.rank == rank and images[0] is not None:
        dataset = dataset.batch(_BATCH)
    once, anew = random_changes(steps)
    return Stream(argument, lambda _: dataset, form, tuple(map(str, names)), changes_once=once, changes_anew=anew)


def _open_arrays(argument: str, arrays: tuple, form: Form, seed: int) -> Stream:
    # Arrays aren't copied, so that an array mapped from a file isn't loaded.
    images, labels = _as_arrays(argument, arrays, form)
    if not form.is_packed and images.ndim == len(form.shapes[0]):  # as Keras loads MNIST
        images = images[..., np.newaxis]
    structure = (images, labels)
    parts = tf.nest.flatten(structure)
    lengths = {part.shape[:1] for part in parts}
    if len(lengths) > 1 or () in lengths:
        shapes = [", ".join(str(list(one.shape)) for one in tf.nest.flatten(each)) for each in structure]
        raise UserError(
            f"`{argument}` must have one label for each image, and one weight if there are weights. Received: images "
            f"{shapes[0]} and labels {shapes[1]}."
        )
    (count,) = lengths.pop()
    kinds = [_tensor_type(part) for part in parts]

    def pick(rows: np.ndarray) -> list[np.ndarray]:
        return [_texts_as_bytes(part[rows]) for part in parts]

    def read(rows: tf.Tensor) -> tuple[Any, Any]:
        read = tf.numpy_function(pick, [rows], kinds, stateful=False)
        sized = [tf.ensure_shape(one, [None, *part.shape[1:]]) for one, part in zip(read, parts, strict=True)]
        return tf.nest.pack_sequence_as(structure, sized)

    def batches(epoch: Epoch) -> tf.data.Dataset:
        rows = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seed_of_epoch(seed, epoch))
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(_BATCH)
        return batches.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    return Stream(argument, batches, form, is_mixed=True)


def _open_py_dataset(argument: str, dataset: keras.utils.PyDataset, form: Form, seed: int) -> Stream:
    if dataset.num_batches is None:
        raise endless(argument)
    if not dataset.num_batches:
        raise empty(argument)
    first = _as_arrays(argument, dataset[0], form)
    spec = tf.nest.map_structure(lambda array: tf.TensorSpec([None, *array.shape[1:]], _tensor_type(array)), first)

    def read(epoch: int) -> Iterator[tuple[Any, Any]]:
        order = np.arange(dataset.num_batches)
        training = epoch >= 0
        if training:
            dataset.on_epoch_begin()
            np.random.default_rng([seed, epoch]).shuffle(order)
        try:
            for number in order:
                yield tf.nest.map_structure(_texts_as_bytes, _as_arrays(argument, dataset[int(number)], form))
        finally:  # a training leaves out what is beyond its last full batch
            if training:
                dataset.on_epoch_end()

    def batches(epoch: Epoch) -> tf.data.Dataset:
        number = tf.cast(-1 if epoch is None else epoch, tf.int64)
        return tf.data.Dataset.from_generator(read, output_signature=spec, args=(number,))

    methods = ("on_epoch_begin", "on_epoch_end")
    is_told = any(getattr(type(dataset), name) is not getattr(keras.utils.PyDataset, name) for name in methods)
    return Stream(argument, batches, form, is_told=is_told)


_KINDS = {
    tf.data.Dataset: _open_dataset,
    keras.utils.PyDataset: _open_py_dataset,
    (tuple, list): _open_arrays,
}


def endless(argument: str) -> UserError:
    """The error for data that repeats forever."""
    return UserError(f"{_expected(argument)}, and must end. Received data that repeats forever: leave out `repeat`.")


def empty(argument: str) -> UserError:
    """The error for data without any example."""
    return UserError(f"{_expected(argument)}, with at least one image. Received empty data.")


def _arranged(argument: str, element: Any, form: Form, kind: type) -> tuple[Any, Any]:
    """Arranges an element of a user's data, whose parts must be of a kind."""
    if isinstance(element, tuple | list) and len(element) in (2, 3):
        arranged = form.arrange(argument, element)
        parts = tf.nest.flatten(arranged) if kind is not object else ()
        if all(isinstance(part, kind) for part in parts):
            return arranged
    if isinstance(element, tuple | list):
        received = f"{len(element)} parts ({', '.join(type(part).__name__ for part in element)})"
    else:
        received = f"{type(element).__name__}"
    raise UserError(
        f"{_expected(argument)}: images and labels, and weights of images if you like. Received elements of {received}."
    )


def _check_spec(argument: str, stream: Stream) -> None:
    images, labels = map(tf.nest.flatten, stream.spec)
    numeric = all(one.dtype.is_integer or one.dtype.is_floating or one.dtype == tf.bool for one in images)
    known = all(_is_number(one.dtype) or one.dtype in (tf.string, tf.bool) for one in labels)
    ranks = [len(shape) + 1 for shape in stream.form.shapes]
    sized = [one.shape.rank for one in images] == ranks and all(one.shape.rank for one in labels)
    sized = sized and None not in [side for one in (*images, *labels) for side in one.shape[1:]]
    if not (sized and numeric and known):
        axes = {3: "[batch, height, width, channels]", 2: "[batch, steps, channels]"}
        wanted = axes.get(len(stream.form.shapes[stream.form.image]), "[batch, ...]")
        raise UserError(
            f"{_expected(argument)}: images {wanted} of one size, and labels [batch] or [batch, ...] of one size. "
            f"Received: {', '.join(map(_describe, images))} and {', '.join(map(_describe, labels))}."
        )


def _is_number(dtype: tf.DType) -> bool:
    return dtype.is_integer or dtype.is_floating


def _as_arrays(argument: str, element: Any, form: Form) -> tuple[Any, Any]:
    """Arranges an element whose parts are arrays, or lists that can be made arrays."""
    images, labels = _arranged(argument, element, form, object)
    images = tuple(map(_as_array, images)) if form.is_packed else _as_array(images)
    weighed = len(element) == 3 and element[2] is not None

    def convert(label: Any) -> Any:
        return tuple(map(_as_array, label)) if weighed else _as_array(label)

    return images, convert(labels) if len(form.outputs) == 1 else tuple(map(convert, labels))


def _as_array(part: Any) -> np.ndarray:
    return part if isinstance(part, np.ndarray) else np.asarray(part)


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
