"""Masks: pictures whose pixel values are class numbers. Checks them, and reads them beside their images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from tas_tf.data.file_source import FileSource
from tas_tf.data.image_files import DAMAGE, THREADS, Broken, file_stamp, reason_of
from tas_tf.data.resizing import resize_image
from tas_tf.errors import UserError

_GREY = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_OPACITY = ("LA", "La", "PA")
_COLOURS = ("RGB", "RGBA")
#: The value of "yes" in masks of two classes that are meant to be looked at.
_WHITE = 255


class Mask(NamedTuple):
    """What a mask holds.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        values: Pixel values that occur, sorted.
    """

    height: int
    width: int
    values: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MaskSource(FileSource):
    """Image files that have a mask each, both too large for memory. Labels are the paths of masks.

    Attributes:
        mask_size: Height and width of labels.
        class_of: Class number of each pixel value, uint8 `[256]`.
    """

    mask_size: tuple[int, int]
    class_of: np.ndarray = dataclasses.field(repr=False)

    def row_reader(self, split: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function from an index to the classes of all pixels, uint8 `[height, width]`."""
        paths, class_of = tf.constant(self.labels(split)), tf.constant(self.class_of)

        def read(index: tf.Tensor) -> tf.Tensor:
            mask = tf.numpy_function(lambda path: read_mask(path.decode())[..., np.newaxis], [paths[index]], tf.uint8)
            mask = resize_image(tf.ensure_shape(mask, [None, None, 1]), self.mask_size, self.resize, nearest=True)
            return tf.gather(class_of, tf.cast(mask[..., 0], tf.int32))

        return read

    def stamps(self, split: str) -> Sequence[str]:
        """A text for each image and its mask."""
        masks = [file_stamp(path) for path in self.labels(split)]
        return [
            f"{one} {other}" if one and other else "" for one, other in zip(super().stamps(split), masks, strict=True)
        ]

    def fault(self, split: str, index: int) -> Broken | None:
        """Why an image or its mask can't be read."""
        path = str(self.labels(split)[index])
        try:
            read_mask(path)
        except Broken as broken:
            return super().fault(split, index) or Broken(f"its mask {path}: {broken}")
        return super().fault(split, index)

    def read_labels(self, split: str) -> np.ndarray:
        """Reads the masks of a split, uint8 `[num_examples, height, width]`."""
        rows = tf.data.Dataset.range(len(self.labels(split)))
        masks = rows.map(self.row_reader(split), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return np.stack(list(masks.as_numpy_iterator()))


def read_mask(path: str) -> np.ndarray:
    """Reads the pixel values of a mask: the numbers in a palette, or shades of grey.

    Returns:
        uint8 `[height, width]`.

    Raises:
        Broken: The file can't be read, or its pixel values aren't class numbers.
    """
    try:
        with Image.open(path) as image:
            if image.format in ("JPEG", "MPO"):
                raise Broken("JPEG changes pixel values; a mask must be a PNG file or the like")
            values = _values(image)
    except DAMAGE as error:
        raise Broken(reason_of(path, error)) from error
    if values.max(initial=0) > np.iinfo(np.uint8).max:
        raise Broken(f"it has the pixel value {values.max()}; class numbers end at 255")
    return values.astype(np.uint8)


def _values(image: Image.Image) -> np.ndarray:
    if image.mode in _GREY:
        return np.asarray(image)
    if image.mode in _WITH_OPACITY:
        return np.asarray(image.getchannel(0))
    if image.mode in _COLOURS:
        colours = np.asarray(image)[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
    raise Broken("it is in colours; the pixels of a mask must be class numbers, in a palette or as shades of grey")


def look_at_masks(paths: Sequence[str]) -> list[Mask | Broken]:
    """Reads masks, several at a time, in the order of `paths`."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(_look_at_one, paths))


def _look_at_one(path: str) -> Mask | Broken:
    try:
        values = read_mask(path)
    except Broken as broken:
        return broken
    height, width = values.shape
    return Mask(height, width, tuple(np.flatnonzero(np.bincount(values.reshape(-1))).tolist()))


def number_classes(masks: Mapping[str, Mask], num_classes: int) -> np.ndarray:
    """Returns the class number of each pixel value, uint8 `[256]`: the value itself; of two classes, 255 may be 1.

    Args:
        masks: All masks, by path.
        num_classes: Number of classes, two for a single decision.

    Raises:
        UserError: A mask has a value that is no class number.
    """
    class_of = np.arange(256, dtype=np.uint8)
    used = {value for mask in masks.values() for value in mask.values}
    if num_classes == 2 and _WHITE in used and used <= {0, _WHITE}:
        class_of[_WHITE] = 1
        return class_of
    wrong = {path: mask.values[-1] for path, mask in masks.items() if mask.values[-1] >= num_classes}
    if wrong:
        path, value = next(iter(wrong.items()))
        white = ", or only 0 and 255," if num_classes == 2 else ""
        raise UserError(
            f"`dataset`: pixel values of masks must be class numbers from 0 to {num_classes - 1}{white} as the network "
            f"has {num_classes} classes. Received: {value} in {path} ({len(wrong)} of {len(masks)} masks have such "
            "values)."
        )
    return class_of
