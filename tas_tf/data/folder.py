"""Images in folders, one sub-folder for each class."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from tas_tf.data.source import SPLITS, ArraySource, Source, StreamedSource, make_array_source, resize_image
from tas_tf.data.split import stratified_halves
from tas_tf.errors import UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_GREY_MODES = ("1", "L", "I", "I;16")

Files = tuple[list[str], np.ndarray]  # paths and their labels


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FolderSource(StreamedSource):
    """A folder of images that is too large for memory.

    Attributes:
        split_paths: Image paths by split.
    """

    split_paths: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def examples(self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """Yields `(index, encoded image, label)`, in the order of `indices` if there is no seed."""
        paths, labels = tf.constant(self.split_paths[split]), tf.constant(self.labels(split))
        order = tf.constant(indices, tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed=seed)
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: (index, tf.io.read_file(paths[index]), labels[index]),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def sample(self, indices: np.ndarray, count: int) -> np.ndarray:
        """Picks evenly spaced indices, because files are sorted by class."""
        return indices[:: max(1, len(indices) // count)][:count]


def load_folder(
    path: str,
    *,
    image_size: int | None,
    test_share: float | None = None,
    memory_limit: int,
) -> Source:
    """Reads a folder with class sub-folders in `train/` and `test/`, or directly in the folder.

    Args:
        path: Path of the folder.
        image_size: Height and width that images are resized to.
        test_share: Share of each class to hold back for testing; needed if there is no `test/`, rejected otherwise.
        memory_limit: Largest size of the resized images, in bytes, that is held in memory.

    Raises:
        UserError: If the folder is missing or has no classes, the classes in `train/` and `test/` differ, an image
            can't be read, or an argument is missing.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f"`dataset` names a missing folder. Expected folder:PATH. Received: folder:{path}.")
    if image_size is None:
        raise UserError(f"`image_size` is needed for folder:{path}. Expected pixels, e.g. 224. Received: None.")
    class_names, files = _find_files(root, test_share=test_share)
    shape = (image_size, image_size, _num_channels(files["train"]))
    num_files = sum(len(paths) for paths, _ in files.values())
    if num_files * int(np.prod(shape)) <= memory_limit:
        return _in_memory(f"folder:{path}", class_names, files, shape)
    return FolderSource(
        name=f"folder:{path}",
        class_names=class_names,
        image_shape=shape,
        flip_ok=True,
        split_labels={split: labels for split, (_, labels) in files.items()},
        split_paths={split: np.array(paths) for split, (paths, _) in files.items()},
    )


def _find_files(root: pathlib.Path, *, test_share: float | None) -> tuple[tuple[str, ...], dict[str, Files]]:
    has_test = (root / "test").is_dir()
    if (root / "train").is_dir():
        if has_test and test_share is not None:
            raise UserError(f"`test_share` can't be used: {root} has a test/ folder. Remove one of them.")
        if has_test:
            return _find_both(root)
        root = root / "train"
    if test_share is None:
        raise UserError(
            f"`test_share` is needed: {root} has no separate images for testing. Expected class folders in "
            "train/ and test/, or `test_share` (e.g. 0.2) to hold back a share of each class. Received: None."
        )
    class_names = _find_classes(root)
    paths, labels = _list_images(root, class_names)
    train, test = stratified_halves(labels, share=1.0 - test_share)
    return class_names, {
        "train": ([paths[row] for row in train], labels[train]),
        "test": ([paths[row] for row in test], labels[test]),
    }


def _find_both(root: pathlib.Path) -> tuple[tuple[str, ...], dict[str, Files]]:
    classes = {split: _find_classes(root / split) for split in SPLITS}
    if classes["train"] != classes["test"]:
        differing = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise UserError(
            f"The class folders in {root}/train and {root}/test differ. Expected the same names in both. "
            f"Received {len(differing)} in only one of them: {', '.join(differing[:5])}."
        )
    return classes["train"], {split: _list_images(root / split, classes[split]) for split in SPLITS}


def _find_classes(root: pathlib.Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise UserError(
            f"{root} holds no classes. Expected at least two sub-folders, each with the images of one class. "
            f"Received: {', '.join(names) or 'none'}."
        )
    return names


def _list_images(root: pathlib.Path, class_names: Sequence[str]) -> Files:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(str(p) for p in (root / name).rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        if not found:
            raise UserError(
                f"The class folder {root / name} holds no images. Expected files ending in {', '.join(_SUFFIXES)}."
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, np.int64)


def _num_channels(files: Files) -> int:
    """Returns 1 if the first image of every class is grey, otherwise 3."""
    paths, labels = files
    firsts = np.unique(labels, return_index=True)[1]
    return 1 if all(_image_mode(paths[row]) in _GREY_MODES for row in firsts) else 3


def _image_mode(path: str) -> str:
    try:
        with Image.open(path) as image:
            return image.mode
    except (UnidentifiedImageError, OSError) as error:
        raise _unreadable(path) from error


def _in_memory(
    name: str, class_names: tuple[str, ...], files: Mapping[str, Files], shape: tuple[int, int, int]
) -> ArraySource:
    arrays = {split: (_read_images(paths, shape), labels) for split, (paths, labels) in files.items()}
    return make_array_source(name, class_names, train=arrays["train"], test=arrays["test"], flip_ok=True)


def _read_images(paths: list[str], shape: tuple[int, int, int]) -> np.ndarray:
    def read(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=shape[-1], expand_animations=False)
        return resize_image(tf.ensure_shape(image, [None, None, shape[-1]]), shape[0])

    dataset = tf.data.Dataset.from_tensor_slices(paths).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    images = np.empty((len(paths), *shape), np.uint8)
    rows = dataset.as_numpy_iterator()
    for row, path in enumerate(paths):
        try:
            images[row] = next(rows)
        except tf.errors.OpError as error:  # the error doesn't name the file
            raise _unreadable(path) from error
    return images


def _unreadable(path: str) -> UserError:
    return UserError(f"An image can't be read: {path}. Expected PNG, JPEG, BMP or GIF. Replace or remove it.")
