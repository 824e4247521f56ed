"""Maps pixel values to network inputs, in the pipeline or as Keras layers."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.resizing import resize_image
from tas_tf.data.source import ArraySource, StreamedSource
from tas_tf.errors import UserError

PREPROCESSING_KINDS = ("standardise", "none", "scale_0_1", "scale_-1_1", "torch", "caffe")

#: Means and standard deviations of ImageNet's channels, red first, on the scale 0 to 1, as most networks use them.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Means of the older networks, blue first, on the scale 0 to 255.
_CAFFE_MEANS = (103.939, 116.779, 123.68)

# Images that are measured in a streamed data set, where a full pass takes hours.
_STREAMED_SAMPLE = 10_000
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """An affine map of pixel values 0 to 255.

    Attributes:
        kind: One of `PREPROCESSING_KINDS`: `standardise` (subtract mean, divide by std, both per channel), `none`,
            `scale_0_1`, `scale_-1_1`, or one of the maps of `preprocess_input` in `keras.applications` for colour
            images: `torch` (ImageNet's mean and std) and `caffe` (blue first, ImageNet's mean subtracted).
        mean: Per-channel mean on the scale 0 to 255; for `standardise` only.
        std: Per-channel standard deviation on the scale 0 to 255; for `standardise` only.

    Example:
        >>> import tas_tf
        >>> tas_tf.Preprocessing("scale_-1_1").affine()["offset"]
        [-1.0]
    """

    kind: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in PREPROCESSING_KINDS:
            raise UserError(
                f"`preprocessing` is unknown. Expected one of {', '.join(PREPROCESSING_KINDS)}. "
                f"Received: {self.kind!r}."
            )
        given = len(self.mean) > 0 and len(self.mean) == len(self.std) and min(self.std) > 0
        if self.kind == "standardise" and not given:
            raise UserError(
                "`mean` and `std` don't fit `standardise`. Expected one mean and one positive deviation for "
                f"each channel. Received: {self.mean} and {self.std}."
            )

    @classmethod
    def fit(cls, source: ArraySource | StreamedSource, kind: str, *, indices: np.ndarray | None = None) -> Self:
        """Makes a preprocessing for the training images of `source`.

        Args:
            source: Data set. If it is streamed, only a sample of 10,000 images is measured.
            kind: One of `PREPROCESSING_KINDS`.
            indices: Training examples to measure; by default all.

        Raises:
            UserError: The kind needs images with another number of channels.
        """
        if kind in ("torch", "caffe") and source.image_shape[-1] != 3:
            raise UserError(
                f"`preprocess`: {kind} is for images of 3 channels. "
                f"Received: {source.image_shape[-1]} in `{source.name}`."
            )
        if kind != "standardise":
            return cls(kind)
        indices = np.arange(source.num_train) if indices is None else np.asarray(indices)
        if isinstance(source, StreamedSource):
            chunks = _streamed_chunks(source, source.sample(indices, _STREAMED_SAMPLE))
        else:
            chunks = _array_chunks(source.images("train"), indices)
        mean, std = _mean_and_std(chunks, num_channels=source.image_shape[-1])
        return cls(kind, tuple(mean.tolist()), tuple(std.tolist()))

    def apply(self, images: tf.Tensor) -> tf.Tensor:
        """Maps pixel values 0 to 255, `[..., channels]` of any numeric type, to float32 of the same shape."""
        images = tf.cast(images, tf.float32)
        if self.kind == "none":
            return images
        if self.kind == "caffe":
            images = tf.reverse(images, [-1])
        scale, offset = self._scale_and_offset()
        return images * tf.constant(scale, tf.float32) + tf.constant(offset, tf.float32)

    def undo(self, inputs: np.ndarray) -> np.ndarray:
        """Maps what `apply` returned back to pixel values, float32 of the same shape.

        >>> Preprocessing("scale_-1_1").undo(np.array([[-1.0, 1.0]])).round(3).tolist()
        [[0.0, 255.0]]
        """
        described = self.affine()
        pixels = (np.asarray(inputs, np.float32) - np.float32(described["offset"])) / np.float32(described["scale"])
        return pixels[..., ::-1] if described["channel_order"] == "bgr" else pixels

    def layers(self) -> list[keras.Layer]:
        """Returns Keras layers equivalent to `apply`: none, or a `Rescaling` (after a channel swap for `caffe`)."""
        if self.kind == "none":
            return []
        scale, offset = self._scale_and_offset()
        # float32 under any global policy, because bfloat16 can't represent 255 distinct pixel values.
        rescaling = keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")
        return [*_blue_first(), rescaling] if self.kind == "caffe" else [rescaling]

    def affine(self) -> dict[str, Any]:
        """Describes the map for programs that don't know `PREPROCESSING_KINDS`.

        Returns:
            `channel_order`: `rgb`, or `bgr` if the order of channels is reversed first. `scale` and `offset`: lists
            of one number, or of one for each channel. The network's input is `pixels * scale + offset`.
        """
        scale, offset = ((value if isinstance(value, list) else [value]) for value in self._scale_and_offset())
        return {"channel_order": "bgr" if self.kind == "caffe" else "rgb", "scale": scale, "offset": offset}

    def _scale_and_offset(self) -> tuple[float | list[float], float | list[float]]:
        if self.kind == "none":
            return 1.0, 0.0
        if self.kind == "scale_0_1":
            return 1.0 / 255.0, 0.0
        if self.kind == "scale_-1_1":
            return 1.0 / 127.5, -1.0
        if self.kind == "caffe":
            return 1.0, [-mean for mean in _CAFFE_MEANS]
        mean, std = self.mean, self.std
        if self.kind == "torch":
            mean, std = (tuple(255.0 * value for value in values) for values in _IMAGENET)
        return [1.0 / one for one in std], [-one / other for one, other in zip(mean, std, strict=True)]


def _blue_first() -> list[keras.Layer]:
    """Returns layers that reverse the order of three channels, using only layers that every runtime supports."""
    as_float = keras.layers.Rescaling(1.0, dtype="float32", name="as_float")
    swap = keras.layers.Conv2D(3, 1, use_bias=False, trainable=False, dtype="float32", name="blue_first")
    swap.build((None, None, None, 3))
    swap.kernel.assign(np.eye(3, dtype=np.float32)[::-1][None, None])
    return [as_float, swap]


def _array_chunks(images: np.ndarray, indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), _CHUNK):
        yield images[indices[start : start + _CHUNK]]


def _streamed_chunks(source: StreamedSource, indices: np.ndarray) -> Iterator[np.ndarray]:
    dataset = source.examples("train", indices).take(len(indices))
    dataset = dataset.map(
        lambda _, encoded, __: resize_image(source.decode(encoded), source.image_shape[:2], source.resize),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.batch(64).as_numpy_iterator()


def _mean_and_std(chunks: Iterable[np.ndarray], *, num_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Measures uint8 images through their histograms, so that results are exact in any order of images."""
    counts = np.zeros([num_channels, 256], np.int64)
    for chunk in chunks:
        for channel in range(num_channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    # Keep the scale of constant channels, which carry no information.
    return mean, np.sqrt(np.where(variance > 1e-6, variance, 1.0))
