"""Keeps a few images that the teacher recognises and the student doesn't, and makes small PNGs of them."""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass, field

import numpy as np

# Sides of stored images in pixels: larger ones are reduced, and smaller ones enlarged so that their pixels show.
_LARGEST, _SMALLEST = 128, 64
# How far rounding may take the values of pixels beyond their range.
_SLACK = 1e-3
# Data whose largest value is lower isn't made of bytes.
_BRIGHT = 128


@dataclass(frozen=True)
class Mistake:
    """An image that the teacher recognises and the student doesn't.

    Attributes:
        index: Place of the image in the test set.
        label: Its true class.
        predicted: The class that the student chooses.
        teacher: Probability that the teacher gives the true class, 0 to 1.
        student: Probability that the student gives the class that it chooses, 0 to 1.
    """

    index: int
    label: int
    predicted: int
    teacher: float
    student: float


@dataclass
class Mistakes:
    """The mistakes of which the student is surest, with their images; memory holds no more than these images.

    Attributes:
        limit: Number of images to keep.
    """

    limit: int
    _kept: list[tuple[float, int, Mistake, np.ndarray]] = field(default_factory=list)
    _low: float = np.inf
    _high: float = -np.inf

    def add(self, mistake: Mistake, image: np.ndarray) -> None:
        """Keeps a mistake and its image, `[height, width, channels]`, unless the student is surer of enough others."""
        # Of equal probabilities, the earlier image counts, whatever the batches.
        entry = (mistake.student, -mistake.index, mistake, image)
        keep = heapq.heappush if len(self._kept) < self.limit else heapq.heapreplace
        if keep is heapq.heappush or (self._kept and entry[:2] > self._kept[0][:2]):
            # A copy, since a view would keep its whole batch in memory.
            keep(self._kept, (*entry[:3], image.copy()))

    def saw(self, images: np.ndarray) -> None:
        """Notes the range of pixel values, over all images that are looked at."""
        self._low, self._high = min(self._low, float(images.min())), max(self._high, float(images.max()))

    def result(self) -> list[tuple[Mistake, np.ndarray]]:
        """Mistakes and pixels, uint8 `[height, width, channels]`, those that the student is surest of first."""
        ordered = sorted(self._kept, key=lambda entry: entry[:2], reverse=True)
        return [(mistake, to_pixels(image, self._low, self._high)) for _, _, mistake, image in ordered]


def is_picture(shape: tuple[int | None, ...]) -> bool:
    """Whether something of this shape can be shown: grey or colour images.

    >>> is_picture((28, 28, 1)), is_picture((32, 32, 3)), is_picture((16,)), is_picture((8, 8, 5))
    (True, True, False, False)
    """
    return len(shape) == 3 and shape[-1] in (1, 3)


def to_pixels(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps an image to uint8 pixels, by the range that all images of the data have.

    Args:
        image: The image, of any numeric type.
        low: Lowest value in the data.
        high: Highest value in the data.

    Returns:
        Pixels of the same shape. Values from 0 to 255 stay if some are above 128, those from 0 to 1 or from -1 to 1 are
        scaled, and those of any other range are stretched.

    Example:
        >>> to_pixels(np.array([-1.0, 0.0, 1.0]), -1.0, 1.0).tolist()
        [0, 128, 255]
    """
    if low >= -_SLACK and _BRIGHT < high <= 255 + _SLACK:
        low, high = 0.0, 255.0
    elif low >= -_SLACK and high <= 1 + _SLACK:
        low, high = 0.0, 1.0
    elif low >= -1 - _SLACK and high <= 1 + _SLACK:
        low, high = -1.0, 1.0
    scaled = (image.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def to_png(pixels: np.ndarray) -> bytes:
    """Makes a PNG of an image, reduced to sides of at most 128 pixels, or enlarged by a whole factor to about 64.

    Args:
        pixels: uint8, `[height, width, 1]` or `[height, width, 3]`.
    """
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    longest = max(image.size)
    if longest > _LARGEST:
        size = tuple(max(1, round(side * _LARGEST / longest)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    elif longest < _SMALLEST:
        factor = -(-_SMALLEST // longest)
        image = image.resize(tuple(side * factor for side in image.size), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()
