"""A data set of image files, held in memory if it fits."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.data.decodable import remember, undecodable
from tas_tf.data.folder_layout import Label, Listing, without_empty_classes
from tas_tf.data.image_files import Broken, ImageFile, as_png, check_readable, file_stamp, look_at, read_image, remarks
from tas_tf.data.resizing import changes_proportions, resize_image
from tas_tf.data.source import SPLITS, Positions, Source, StreamedSource, make_array_source
from tas_tf.data.split import strata_of, stratified_halves
from tas_tf.errors import UserError

#: Image files by path.
Looked = Mapping[str, ImageFile]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(StreamedSource):
    """Image files that are too large for memory.

    Attributes:
        split_paths: Image paths by split.
        split_readable: Whether TensorFlow can read each file, by split, bool `[num_examples]`.
    """

    split_paths: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    split_readable: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def examples(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, encoded image, label)`, in the order of `indices` if there is no seed."""
        image = self.image_reader(split)
        return self.labelled(split, indices, seed=seed, only=only).map(
            lambda index, label: (index, image(index), label), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def labelled(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, label)` in the order of `examples`, without reading images."""
        label, order = self.row_reader(split), tf.constant(indices, tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=seed)
        if only is not None:
            order = tf.boolean_mask(order, only(tf.range(len(indices), dtype=tf.int64)))
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: (index, label(index)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    @property
    def place(self) -> str:
        """Folder that holds all files."""
        return os.path.commonpath([os.path.abspath(path) for paths in self.split_paths.values() for path in paths])

    def stamps(self, split: str) -> Sequence[str]:
        """A text for each file, with the way in which it is read."""
        found = zip(map(file_stamp, self.split_paths[split]), self.split_readable[split], strict=True)
        return [stamp and f"{stamp} {int(read)}" for stamp, read in found]

    def where(self, split: str, index: int) -> str:
        """Path of the file."""
        return str(self.split_paths[split][index])

    def fault(self, split: str, index: int) -> Broken | None:
        """Why a file can't be read, even by Pillow."""
        try:
            read_image(self.where(split, index), self.image_shape[-1])
        except Broken as broken:
            return broken
        return None

    def fingerprint(self, split: str) -> str:
        """Hash of paths, sizes and times of change."""
        found = hashlib.sha256()
        for path in self.split_paths[split]:
            found.update(f"{file_stamp(path)}\n".encode())
        return found.hexdigest()

    def image_reader(self, split: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function from an index to the encoded image."""
        paths, readable = tf.constant(self.split_paths[split]), tf.constant(self.split_readable[split])
        channels = self.image_shape[-1]

        def convert(path: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(lambda name: as_png(name, channels), [path], tf.string), [])

        def read(index: tf.Tensor) -> tf.Tensor:
            path = paths[index]
            return tf.cond(readable[index], lambda: tf.io.read_file(path), lambda: convert(path))

        return read

    def row_reader(self, split: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function from an index to its row, see `Source.rows`."""
        rows = tf.constant(self.rows(split))
        return lambda index: rows[index]

    def read_labels(self, split: str) -> np.ndarray:
        """Reads the labels of a split as a source in memory has them."""
        return self.labels(split)

    def sample(self, indices: np.ndarray, count: int) -> np.ndarray:
        """Picks evenly spaced indices, because files are sorted by class."""
        return indices[:: max(1, len(indices) // count)][:count]


def load_files(
    name: str,
    listing: Listing,
    *,
    image_size: tuple[int, int] | None,
    test_share: float | None,
    resize: str,
    channels: int | None,
    skip_broken: bool,
    memory_limit: int,
    checked: Sequence[str] = SPLITS,
    kind: Callable[..., FileSource] = FileSource,
) -> Source:
    """Makes a source of image files.

    Args:
        name: Name of the data set, as the user gave it.
        listing: The files with their labels.
        image_size: Height and width that images are resized to.
        test_share: Share of the images, of each class if there are classes, to hold back for testing; needed if there
            are no images for scores, rejected otherwise.
        resize: How images are brought to that size, one of `RESIZE_WAYS`.
        channels: 1, 3 or 4; by default 1 if all images are grey, otherwise 3.
        skip_broken: Whether files that can't be read are left out.
        memory_limit: Largest size of the resized images, in bytes, that is held in memory.
        checked: Splits whose images are decoded once if they aren't held in memory, to find those that are damaged.
        kind: Makes the source from its attributes.

    Raises:
        UserError: Files can't be used, there are no two classes or no images left, or an argument is missing or doesn't
            fit.
    """
    if image_size is None:
        raise UserError(f"`image_size` is needed for {name}. Expected pixels, e.g. 224 or 48x144. Received: None.")
    if channels not in (None, 1, 3, 4):
        raise UserError(f"`channels` must be 1, 3 or 4 for image files. Received: {channels}.")
    _check_test_share(name, listing, test_share)
    paths = [path for pairs in listing.files.values() for path, _ in pairs]
    looked = dict(zip(paths, look_at(paths), strict=True))
    usable = {path: found for path, found in looked.items() if isinstance(found, ImageFile)}

    unread = [(path, found) for path, found in looked.items() if isinstance(found, Broken)]
    broken = [*listing.unusable, *unread]

    def make() -> FileSource:
        left = _without(listing, broken, name, skip=skip_broken)
        files = [usable[path] for pairs in left.files.values() for path, _ in pairs]
        read_with = channels or (1 if all(file.grey for file in files) else 3)
        return _file_source(
            name,
            left,
            usable,
            kind,
            test_share=test_share,
            image_shape=(*image_size, read_with),
            flip_ok=True,
            resize=resize,
            reshaped=any(changes_proportions(file.height, file.width, image_size) for file in files),
            notes=(*left.notes, *remarks(name, files, read_with)),
            left_out=_in_words(broken),
        )

    source = make()
    if sum(map(len, source.split_paths.values())) * int(np.prod(source.image_shape)) <= memory_limit:
        return _in_memory(source, skip_broken=skip_broken)
    while found := undecodable(source, checked):
        for path, fault in ((source.where(split, row), source.fault(split, row)) for split, row in found):
            if fault is None and usable[path].tensorflow:  # what Pillow reads, TensorFlow needn't
                usable[path] = dataclasses.replace(usable[path], tensorflow=False)
            else:
                broken.append((path, fault or Broken("TensorFlow can't decode it")))
        source = make()
    return source


def _check_test_share(name: str, listing: Listing, test_share: float | None) -> None:
    if "test" in listing.files and test_share is not None:
        raise UserError(f"`test_share` can't be used: {name} has images for testing of its own. Leave it out.")
    if "test" not in listing.files and test_share is None:
        raise UserError(
            f"`test_share` is needed: {name} has no separate images for testing. Expected the folders train/ and test/ "
            "or val/, in a table the column split, or `test_share` (e.g. 0.2) to hold back a share of the images. "
            "Received: None."
        )


def _without(listing: Listing, broken: Sequence[tuple[str, Broken]], name: str, *, skip: bool) -> Listing:
    """Leaves out files that can't be used.

    Raises:
        UserError: They aren't to be left out, or those that are left aren't enough.
    """
    notes, paths = check_readable(name, broken, skip=skip), dict(broken)
    listing = dataclasses.replace(
        listing,
        files={split: [pair for pair in pairs if pair[0] not in paths] for split, pairs in listing.files.items()},
        notes=(*listing.notes, *notes),
    )
    return without_empty_classes(listing, name) if listing.has_classes else _not_empty(listing, name)


def _in_words(broken: Sequence[tuple[str, Broken]]) -> tuple[tuple[str, str], ...]:
    return tuple((path, str(reason)) for path, reason in broken)


def _not_empty(listing: Listing, name: str) -> Listing:
    """Checks that there are images in each split."""
    empty = [split for split, pairs in listing.files.items() if not pairs]
    if empty:
        raise UserError(f"`dataset`: {name} must have images with labels. Received no images for {empty[0]}.")
    return listing


def _as_array(labels: list[Label]) -> np.ndarray:
    found = np.array(labels)
    return found.astype(np.float32) if found.dtype.kind == "f" else found


def _file_source(
    name: str,
    listing: Listing,
    looked: Looked,
    kind: Callable[..., FileSource],
    *,
    test_share: float | None,
    **details,
) -> FileSource:
    splits = {
        split: (np.array([path for path, _ in pairs]), _as_array([label for _, label in pairs]))
        for split, pairs in listing.files.items()
    }
    if "test" not in splits:
        paths, labels = splits["train"]
        train, test = _halves(labels, test_share)
        splits = {"train": (paths[train], labels[train]), "test": (paths[test], labels[test])}
    return kind(
        name=name,
        class_names=listing.class_names,
        output_classes=listing.output_classes,
        split_labels={split: labels for split, (_, labels) in splits.items()},
        split_paths={split: paths for split, (paths, _) in splits.items()},
        **{
            name: {
                split: np.array([given[path] for path in paths], np.float32)
                for split, (paths, _) in splits.items()
                if given
            }
            for name, given in (("split_weights", listing.weights), ("split_inputs", listing.inputs))
        },
        split_readable={
            split: np.array([looked[path].tensorflow and details["image_shape"][-1] != 4 for path in paths], bool)
            for split, (paths, _) in splits.items()
        },
        **details,
    )


def _halves(labels: np.ndarray, test_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, each class in the same proportion; the only image of a class is for training."""
    strata = strata_of(labels)
    train, test = stratified_halves(strata, share=1.0 - test_share)
    alone = np.isin(test, np.flatnonzero(np.bincount(strata)[strata] == 1))
    if alone.all():
        raise UserError(f"`test_share`={test_share} leaves no images for testing. Give a larger one.")
    return np.sort(np.concatenate([train, test[alone]])), test[~alone]


def _in_memory(source: FileSource, *, skip_broken: bool) -> Source:
    """Reads all images, and so finds those that are damaged in the middle."""
    broken: list[tuple[str, Broken]] = []
    arrays: dict[str, Any] = {}
    further: dict[str, dict[str, np.ndarray]] = {"split_weights": {}, "split_inputs": {}}
    decoded: dict[str, np.ndarray] = {}
    for split, paths in source.split_paths.items():
        images, fails, by_pillow = _read_images(source, split)
        broken += [(paths[row], reason) for row, reason in fails.items()]
        good = np.setdiff1d(np.arange(len(paths)), list(fails))
        decoded[split] = np.setdiff1d(good, by_pillow)
        arrays[split] = (images[good] if fails else images, source.read_labels(split)[good])
        for name, values in further.items():
            found = getattr(source, name)
            values |= {split: found[split][good]} if found else {}
    notes = check_readable(source.name, broken, skip=skip_broken)
    if source.reshaped:  # they may be read again to find out how a network's images have to be resized
        remember(source, decoded)
    return make_array_source(
        source.name,
        source.class_names,
        **arrays,
        flip_ok=source.flip_ok,
        resize=source.resize,
        reshaped=source.reshaped,
        output_classes=source.output_classes,
        **further,
        notes=(*source.notes, *notes),
        left_out=(*source.left_out, *_in_words(broken)),
    )


def _read_images(source: FileSource, split: str) -> tuple[np.ndarray, dict[int, Broken], list[int]]:
    """Reads the images of a split.

    Returns:
        The images; the reason why one can't be read, by row; and the rows that Pillow reads but TensorFlow doesn't.
    """
    paths, size, way = source.split_paths[split], source.image_shape[:2], source.resize
    encoded = source.image_reader(split)
    dataset = tf.data.Dataset.range(len(paths)).map(
        lambda index: resize_image(source.decode(encoded(index)), size, way), num_parallel_calls=tf.data.AUTOTUNE
    )
    images, fails, by_pillow = np.zeros((len(paths), *source.image_shape), np.uint8), {}, []
    rows = dataset.as_numpy_iterator()
    for row, path in enumerate(paths):
        try:
            images[row] = next(rows)
        except tf.errors.OpError:  # the error doesn't name the file, and Pillow may be able to read it
            try:
                image = read_image(str(path), source.image_shape[-1])
            except Broken as reason:
                fails[row] = reason
            else:
                images[row] = resize_image(tf.constant(image), size, way)
                by_pillow.append(row)
    return images, fails, by_pillow
