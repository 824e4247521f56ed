"""Streams a TensorFlow Datasets data set that is too large for memory from its record files."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tas_tf.data.image_files import Broken, file_stamp, reason_of_tensorflow
from tas_tf.data.source import Positions, StreamedSource
from tas_tf.replacing import written_aside

_FILES_AT_ONCE = 8
# Encoded images that are shuffled together, and their size, of which memory holds twice as much. Chunks may be small:
# TFDS wrote the images shuffled, and files are shuffled too.
_CHUNK, _CHUNK_BYTES = 2048, 2**28


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TfdsSource(StreamedSource):
    """A prepared TFDS data set, streamed.

    Attributes:
        builder: Prepared builder of the data set.
        keys: Names of the image feature and of the label feature.
        tfds_splits: Name of the TFDS split that holds each split's examples.
        rows: Positions of each split's examples in the TFDS split.
    """

    builder: tfds.core.DatasetBuilder = dataclasses.field(repr=False)
    keys: tuple[str, str]
    tfds_splits: Mapping[str, str]
    rows: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def examples(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, encoded image, label)`, in the order of the files if there is no seed."""
        image_key, label_key = self.keys
        features = self.builder.info.features
        index_of = tf.constant(self._index_of_row(split, indices))

        def parse(row: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, ...]:
            example = features.deserialize_example(record, decoders={image_key: tfds.decode.SkipDecoding()})
            return index_of[row], example[image_key], example[label_key]

        dataset = _records(self.builder, self.tfds_splits[split], seed=seed)
        dataset = dataset.filter(lambda row, record: index_of[row] >= 0)  # before parsing, which is expensive
        if seed is not None:
            dataset = _shuffled_in_chunks(dataset, seed, self._chunk(split))
        if only is not None:
            dataset = dataset.enumerate().filter(lambda position, _: only(position)).map(lambda _, example: example)
        return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @property
    def place(self) -> str:
        """Folder of the prepared data set."""
        return str(self.builder.data_dir)

    def stamps(self, split: str) -> Sequence[str]:
        """A text for each example: its record file, as it is now, and its number there."""
        files = [file_stamp(path) for path in record_files(self.builder, self.tfds_splits[split])]
        return [files[file] and f"{files[file]} {number}" for file, number in zip(*self._places[split], strict=True)]

    def where(self, split: str, index: int) -> str:
        """The record file, and the number of the record in it."""
        path, number = self._record(split, index)
        return f"{path}, record {number}"

    def fault(self, split: str, index: int) -> Broken | None:
        """Why a record can't be read or decoded."""
        path, number = self._record(split, index)
        return next(_faults_in(path, number, 1, self.builder.info.features, self.keys[0]), (number, None))[1]

    def _record(self, split: str, index: int) -> tuple[str, int]:
        """The record file of an example, and the number of the example in it."""
        files, numbers = self._places[split]
        return record_files(self.builder, self.tfds_splits[split])[files[index]], int(numbers[index])

    @functools.cached_property
    def _places(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Number of the record file of each example by split, and of the example in it."""
        found = {}
        for split, rows in self.rows.items():
            starts = np.cumsum([0, *self.builder.info.splits[self.tfds_splits[split]].shard_lengths])
            files = np.searchsorted(starts, rows, side="right") - 1
            found[split] = (files, rows - starts[files])
        return found

    def fingerprint(self, split: str) -> str:
        """Name, version and files of the data set, and which of its examples the split has."""
        info = self.builder.info.splits[self.tfds_splits[split]]
        rows = hashlib.sha256(np.ascontiguousarray(self.rows[split]).tobytes()).hexdigest()
        return repr((str(self.builder.data_dir), self.builder.info.full_name, self.keys, info.shard_lengths, rows))

    def sample(self, indices: np.ndarray, count: int) -> np.ndarray:
        """Picks the first examples in the files, which TFDS has shuffled."""
        return np.sort(indices)[:count]

    def _chunk(self, split: str) -> int:
        info = self.builder.info.splits[self.tfds_splits[split]]
        return max(1, min(_CHUNK, _CHUNK_BYTES * info.num_examples // max(1, info.num_bytes)))

    def _index_of_row(self, split: str, indices: np.ndarray) -> np.ndarray:
        rows = self.rows[split]
        num_rows = self.builder.info.splits[self.tfds_splits[split]].num_examples
        index_of = np.full(num_rows, -1, np.int64)
        index_of[rows[indices]] = indices
        return index_of


def read_labels(builder: tfds.core.DatasetBuilder, split: str, label_key: str) -> np.ndarray:
    """Reads the labels of a split in the order of its files, int64 `[num_examples]`.

    Reading takes a pass over all files, so the labels are cached beside them if that folder is writable.
    """
    kept = pathlib.Path(builder.data_dir) / f"{label_key}-{split}.npy"
    if kept.is_file():
        return np.load(kept)
    labels = _scan_labels(builder, split, label_key)
    if os.access(kept.parent, os.W_OK):
        with written_aside(kept) as aside:
            np.save(aside, labels)
    return labels


def _scan_labels(builder: tfds.core.DatasetBuilder, split: str, label_key: str) -> np.ndarray:
    decoders = tfds.decode.PartialDecoding({label_key: True})
    features = decoders.extract_features(builder.info.features)

    def parse(row: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        del row
        return features.deserialize_example(record)[label_key]

    dataset = _records(builder, split, seed=None).map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return np.concatenate(list(dataset.batch(4096).as_numpy_iterator())).astype(np.int64)


def _records(builder: tfds.core.DatasetBuilder, split: str, *, seed: tf.Tensor | None) -> tf.data.Dataset:
    """Yields `(row, serialised example)`; with a seed, files are shuffled and several are read in turn."""
    info = builder.info
    paths = tf.constant(record_files(builder, split))
    lengths = info.splits[split].shard_lengths
    first_rows = tf.constant(np.cumsum([0, *lengths[:-1]]), tf.int64)
    order = tf.range(len(lengths))
    if seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, seed=seed)
    return tf.data.Dataset.from_tensor_slices((tf.gather(paths, order), tf.gather(first_rows, order))).interleave(
        lambda path, first: tf.data.TFRecordDataset(path, buffer_size=1 << 20).enumerate(first),
        cycle_length=1 if seed is None else _FILES_AT_ONCE,
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def damaged_records(builder: tfds.core.DatasetBuilder, image_key: str) -> list[tuple[str, Broken]]:
    """Reads a whole data set, and returns where its images can't be read and why.

    Args:
        builder: Prepared builder of the data set.
        image_key: Name of the image feature.
    """
    return [
        (f"{path}, record {number}", fault)
        for split, info in builder.info.splits.items()
        for path, length in zip(record_files(builder, split), info.shard_lengths, strict=True)
        for number, fault in _faults_in(path, 0, length, builder.info.features, image_key)
    ]


def _faults_in(
    path: str, first: int, count: int, features: tfds.features.FeaturesDict, image_key: str
) -> Iterator[tuple[int, Broken]]:
    """Reads some records of a file, and yields the numbers of those whose image can't be decoded, and why."""
    decoders, number = {image_key: tfds.decode.SkipDecoding()}, first
    try:
        for record in tf.data.TFRecordDataset(path).skip(first).take(count):
            try:
                example = features.deserialize_example(record, decoders=decoders)
                tf.io.decode_image(example[image_key], expand_animations=False)
            except tf.errors.OpError as error:
                yield number, Broken(reason_of_tensorflow(error))
            number += 1
    except tf.errors.OpError as error:  # nothing behind it can be read
        yield number, Broken(reason_of_tensorflow(error))
    else:
        if number < first + count:
            yield number, Broken("the file ends before it")


def record_files(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """Paths of the record files of a split, in the order of their examples."""
    return [str(path) for path in builder.info.splits[split].filepaths]


def _shuffled_in_chunks(dataset: tf.data.Dataset, seed: tf.Tensor, size: int) -> tf.data.Dataset:
    """Shuffles records within chunks of a number of them, by the seed alone.

    `Dataset.shuffle` would mix in the global seed, and fails on a seed that is a tensor if the global one is 0.
    """

    def shuffle(number: tf.Tensor, chunk: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        order = tf.range(tf.shape(chunk[0])[0])
        order = tf.random.experimental.stateless_shuffle(order, seed=tf.random.fold_in(seed, number))
        return tuple(tf.gather(part, order) for part in chunk)

    chunks = dataset.batch(size).enumerate()
    return chunks.map(lambda number, chunk: shuffle(number, chunk)).prefetch(1).unbatch()
