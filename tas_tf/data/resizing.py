"""Brings images to one size: squashed, cut at the borders, or padded."""

import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError

#: How images of other proportions are brought to a size: squashed, as Keras's `image_dataset_from_directory` does by
#: default; cut to the largest central window of the right proportions; or padded with black on both sides.
RESIZE_WAYS = ("squash", "crop", "pad")


def resize_image(image: tf.Tensor, size: tuple[int, int], way: str = "squash", *, nearest: bool = False) -> tf.Tensor:
    """Resizes an image, with antialiasing.

    Args:
        image: uint8 `[height, width, channels]`.
        size: Height and width to resize to.
        way: One of `RESIZE_WAYS`.
        nearest: Whether each pixel is that of the image which is nearest, without antialiasing, as masks need it.

    Returns:
        uint8 `[*size, channels]`.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    inner = size
    if way == "crop":
        image = tf.image.resize_with_crop_or_pad(image, *_largest_window(height, width, size))
    elif way == "pad":
        inner, corner = _place_inside(height, width, size)
    if nearest:
        resized = tf.image.resize(image, inner, method="nearest")
    else:
        resized = tf.image.resize(image, inner, method="bilinear", antialias=True)
        resized = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
    if way == "pad":
        resized = tf.image.pad_to_bounding_box(resized, *corner, *size)
    return tf.ensure_shape(resized, [*size, image.shape[-1]])


def central_view(image: tf.Tensor, size: tuple[int, int], way: str = "squash", first: int | None = None) -> tf.Tensor:
    """Prepares an image for evaluation: resizes it to `first` and cuts out its centre.

    Args:
        image: uint8 `[height, width, channels]`.
        size: Height and width of the centre.
        way: One of `RESIZE_WAYS`.
        first: Height and width to resize to, at least those in `size`, which must be equal; by default `size`, which
            cuts nothing off.

    Returns:
        uint8 `[*size, channels]`.
    """
    if first is None:
        return resize_image(image, size, way)
    start = (first - size[0]) // 2
    return resize_image(image, (first, first), way)[start : start + size[0], start : start + size[1]]


def resize_images(images: np.ndarray, size: tuple[int, int] | None, way: str = "squash") -> np.ndarray:
    """Resizes uint8 images `[n, height, width, channels]`; `None` or their own size leaves them unchanged."""
    if size is None or images.shape[1:3] == size:
        return images
    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.map(lambda image: resize_image(image, size, way), num_parallel_calls=tf.data.AUTOTUNE)
    return np.concatenate(list(dataset.batch(256).as_numpy_iterator()))


def with_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Makes a grey image of one in colour, or the other way round.

    Args:
        image: uint8 `[..., 1]` or `[..., 3]`.
        channels: Channels wanted, 1 or 3.
    """
    if image.shape[-1] == channels:
        return image
    return tf.image.rgb_to_grayscale(image) if channels == 1 else tf.image.grayscale_to_rgb(image)


def check_channels(name: str, found: int, wanted: int | None) -> int:
    """Returns the channels that images get.

    Args:
        name: Name of the data set.
        found: Channels of its images.
        wanted: Channels that the user wants; `None` keeps those found.

    Raises:
        UserError: Images can't be converted so.
    """
    if wanted in (None, found):
        return found
    if {wanted, found} != {1, 3}:
        others = "" if found not in (1, 3) else f", or {4 - found}"
        raise UserError(f"`channels` must be {found}, as in the images of {name}{others}. Received: {wanted}.")
    return wanted


def changes_proportions(height: int | None, width: int | None, size: tuple[int, int]) -> bool:
    """Whether the way of resizing matters: an image doesn't have the proportions of `size`, to a pixel.

    >>> changes_proportions(480, 640, (96, 96)), changes_proportions(480, 640, (72, 96))
    (True, False)
    """
    if height is None or width is None:
        return True
    return _largest_window(height, width, size) != (height, width)


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size as users give it.

    >>> pair(96), pair((48, 144))
    ((96, 96), (48, 144))
    """
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _place_inside(height: tf.Tensor, width: tf.Tensor, size: tuple[int, int]) -> tuple[tuple, tuple]:
    """Size of an image that is shrunk or enlarged until it just fits into `size`, and its top left corner there."""
    wanted_height, wanted_width = size
    above, beside = wanted_height * width - height * wanted_width, wanted_width * height - width * wanted_height
    rows = tf.where(above > 0, tf.maximum(1, height * wanted_width // width), wanted_height)
    columns = tf.where(beside > 0, tf.maximum(1, width * wanted_height // height), wanted_width)
    return (rows, columns), (tf.maximum(0, above // (2 * width)), tf.maximum(0, beside // (2 * height)))


def _largest_window(height, width, size: tuple[int, int]):
    """The largest window of the proportions of `size`, to whole pixels; sides may be numbers or int32 tensors."""
    wanted_height, wanted_width = size
    rows = (2 * width * wanted_height + wanted_width) // (2 * wanted_width)
    columns = (2 * height * wanted_width + wanted_height) // (2 * wanted_height)
    if isinstance(height, int):
        return min(height, max(1, rows)), min(width, max(1, columns))
    return tf.minimum(height, tf.maximum(1, rows)), tf.minimum(width, tf.maximum(1, columns))
