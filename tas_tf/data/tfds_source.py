"""Loads any classification data set of TensorFlow Datasets as a source, in memory if it fits."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tas_tf.data.decodable import listing_of_rows, undecodable
from tas_tf.data.image_files import listing_of
from tas_tf.data.resizing import changes_proportions, check_channels, resize_image, with_channels
from tas_tf.data.source import SPLITS, Source, looks_alike_mirrored, make_array_source
from tas_tf.data.split import stratified_halves
from tas_tf.data.tfds_builder import find_builder, prepare
from tas_tf.data.tfds_stream import TfdsSource, damaged_records, read_labels
from tas_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Layout of a data set: feature names, TFDS splits, class names, final image shape, and how images get it."""

    image_key: str
    label_key: str
    train_split: str
    test_split: str | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    size_changes: bool
    notes: tuple[str, ...]
    resize: str
    reshaped: bool


def load_tfds(
    name: str,
    *,
    data_dir: str | None = None,
    features: str | None = None,
    image_size: tuple[int, int] | None = None,
    test_share: float | None = None,
    resize: str = "squash",
    channels: int | None = None,
    checked: Sequence[str] = SPLITS,
    memory_limit: int,
) -> Source:
    """Loads the split `train`, and `test` for testing, or `validation` if `test` is missing or unlabelled.

    Args:
        name: Name in TFDS.
        data_dir: TFDS's data folder.
        features: Names of image and label, as in `image,label`; by default the only ones, or those that the data set
            says are for training.
        image_size: Height and width to resize to; needed if images vary in size.
        test_share: Share of each class to hold back for testing; needed if the data set has only `train`, rejected
            otherwise.
        resize: How images are brought to that size, one of `RESIZE_WAYS`.
        channels: Channels of the images, 1 or 3; by default those of the data.
        checked: Splits whose images are decoded once if they aren't held in memory, to find those that are damaged.
        memory_limit: Largest size of the images, in bytes, that is held in memory.

    Raises:
        UserError: If the data set is unknown, unavailable or damaged, or doesn't hold images with one label each.
    """
    builder = find_builder(name, data_dir=data_dir)
    # Reject unsuitable data sets before downloading gigabytes.
    image_key, label_key = _feature_keys(name, builder.info, features)
    _check_image_size(name, builder.info.features[image_key].shape, image_size)
    prepare(builder)
    _check_file_format(name, builder)
    try:
        layout = _find_layout(
            name, builder, image_key, label_key, image_size=image_size, resize=resize, channels=channels
        )
        _check_test_share(name, layout, test_share)
        used = [split for split in (layout.train_split, layout.test_split) if split]
        num_examples = sum(builder.info.splits[split].num_examples for split in used)
        if num_examples * int(np.prod(layout.image_shape)) <= memory_limit:
            return _load_arrays(name, builder, layout, test_share=test_share)
        source = _load_stream(name, builder, layout, test_share=test_share)
    except tf.errors.OpError as error:
        if faults := damaged_records(builder, image_key):
            raise _damaged(name, len(faults), listing_of(faults)) from error
        raise
    if rows := undecodable(source, checked):
        raise _damaged(name, len(rows), listing_of_rows(source, rows))
    return source


def _damaged(name: str, count: int, listing: str) -> UserError:
    return UserError(
        f"`dataset`: {count} record(s) of {name} can't be read. Prepare the data set again, after removing its "
        f"folder or in another `data_dir`:\n{listing}"
    )


def _check_image_size(name: str, shape: tuple[int | None, ...], image_size: tuple[int, int] | None) -> None:
    if image_size is None and None in shape[:2]:
        raise UserError(
            f"`image_size` is needed: the images of {name} vary in size. Expected pixels, e.g. 224. Received: None."
        )


def _check_file_format(name: str, builder: tfds.core.DatasetBuilder) -> None:
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UserError(
            f"Dataset {name} in {builder.data_dir} is stored in a format that tf.data can't read. Expected tfrecord. "
            f"Received: {builder.info.file_format.value}. Prepare it again, or pass another folder as `data_dir`."
        )


def _find_layout(
    name: str,
    builder: tfds.core.DatasetBuilder,
    image_key: str,
    label_key: str,
    *,
    image_size: tuple[int, int] | None,
    resize: str,
    channels: int | None,
) -> _Layout:
    height, width, found = builder.info.features[image_key].shape
    size = image_size or (height, width)
    splits, class_names = builder.info.splits, builder.info.features[label_key].names
    if "train" not in splits:
        raise UserError(f"Dataset {name} has no split `train`. Received: {', '.join(splits) or 'no splits'}.")
    if not class_names:
        raise UserError(f"Dataset {name} doesn't say how many classes its feature `{label_key}` has.")
    test_split = _test_split(builder, label_key)
    return _Layout(
        image_key=image_key,
        label_key=label_key,
        train_split="train",
        test_split=test_split,
        class_names=tuple(class_names),
        image_shape=(*size, check_channels(name, found or 3, channels)),
        size_changes=size != (height, width),
        notes=_notes(name, splits, test_split),
        resize=resize,
        reshaped=changes_proportions(height, width, size),
    )


def _notes(name: str, splits: Iterable[str], test_split: str | None) -> tuple[str, ...]:
    unused = [split for split in splits if split not in ("train", test_split)]
    return (f"`dataset`: splits of {name} that aren't used: {', '.join(unused)}.",) if unused else ()


def _feature_keys(name: str, info: tfds.core.DatasetInfo, named: str | None) -> tuple[str, str]:
    """Returns the names of the image and label features; if there are several, `named` or `supervised_keys` decide."""
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, f in features.items() if type(f) is tfds.features.Image and f.np_dtype == np.uint8]
    labels = [key for key, f in features.items() if type(f) is tfds.features.ClassLabel]
    preferred = (info.supervised_keys or ()) if named is None else [key.strip() for key in named.split(",")]
    if named is not None and not (len(preferred) == 2 and preferred[0] in images and preferred[1] in labels):
        raise UserError(
            f"`features` must be two names, of an 8-bit image ({', '.join(images) or 'none'}) and of a class label "
            f"({', '.join(labels) or 'none'}) of {name}. Received: {named}."
        )
    images = [key for key in images if key in preferred] or images
    labels = [key for key in labels if key in preferred] or labels
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items())
        raise UserError(
            f"Dataset {name} isn't a classification of images. Expected one 8-bit image and one class label "
            f"in each example, or two that `features` names. Received: {found or info.features}."
        )
    return images[0], labels[0]


def _test_split(builder: tfds.core.DatasetBuilder, label_key: str) -> str | None:
    """Returns the split to test on. A `test` with unpublished labels (ImageNet) holds -1 and is skipped."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            first = next(iter(_dataset(builder, split, {label_key: True}).take(1).as_numpy_iterator()))
            if first[label_key] >= 0:
                return split
    return None


def _check_test_share(name: str, layout: _Layout, test_share: float | None) -> None:
    if layout.test_split is None and test_share is None:
        raise UserError(
            f"`test_share` is needed: {name} has no labelled test or validation split. Expected a share of "
            "each class to hold back, e.g. 0.2. Received: None."
        )
    if layout.test_split is not None and test_share is not None:
        raise UserError(f"`test_share` can't be used: {name} has a split {layout.test_split!r}. Leave it out.")


def _dataset(builder: tfds.core.DatasetBuilder, split: str, keys: Mapping[str, bool]) -> tf.data.Dataset:
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict(keys)),
        # Read one file after another, the order in which `tfds_stream` numbers the examples.
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def _load_arrays(name: str, builder: tfds.core.DatasetBuilder, layout: _Layout, *, test_share: float | None) -> Source:
    train = _read_split(builder, layout, layout.train_split)
    if layout.test_split is not None:
        test = _read_split(builder, layout, layout.test_split)
    else:
        rows, held_back = stratified_halves(train[1], share=1.0 - test_share)
        train, test = (train[0][rows], train[1][rows]), (train[0][held_back], train[1][held_back])
    return make_array_source(
        name,
        layout.class_names,
        train=train,
        test=test,
        flip_ok=looks_alike_mirrored(name),
        resize=layout.resize,
        reshaped=layout.reshaped,
        notes=layout.notes,
    )


def _read_split(builder: tfds.core.DatasetBuilder, layout: _Layout, split: str) -> tuple[np.ndarray, np.ndarray]:
    def select(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = example[layout.image_key]
        if layout.size_changes:
            image = resize_image(image, layout.image_shape[:2], layout.resize)
        return with_channels(image, layout.image_shape[-1]), example[layout.label_key]

    dataset = _dataset(builder, split, {layout.image_key: True, layout.label_key: True})
    dataset = dataset.map(select, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images, labels = zip(*dataset.batch(1024).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _load_stream(name: str, builder: tfds.core.DatasetBuilder, layout: _Layout, *, test_share: float | None) -> Source:
    train_labels = read_labels(builder, layout.train_split, layout.label_key)
    train_rows = np.arange(len(train_labels))
    if layout.test_split is not None:
        test_labels = read_labels(builder, layout.test_split, layout.label_key)
        test_rows = np.arange(len(test_labels))
    else:
        train_rows, test_rows = stratified_halves(train_labels, share=1.0 - test_share)
        train_labels, test_labels = train_labels[train_rows], train_labels[test_rows]
    return TfdsSource(
        name=name,
        class_names=layout.class_names,
        image_shape=layout.image_shape,
        flip_ok=looks_alike_mirrored(name),
        resize=layout.resize,
        reshaped=layout.reshaped,
        notes=layout.notes,
        split_labels={"train": train_labels, "test": test_labels},
        builder=builder,
        keys=(layout.image_key, layout.label_key),
        tfds_splits={"train": layout.train_split, "test": layout.test_split or layout.train_split},
        rows={"train": train_rows, "test": test_rows},
    )
