"""Random changes to training images, stateless and determined by a seed."""

import dataclasses
import math

import tensorflow as tf

from tas_tf.data.colour import change_colours
from tas_tf.data.share import WHOLE, Share
from tas_tf.errors import UserError
from tas_tf.settings import Settings, setting

_CROP_AREA = (0.08, 1.0)
_CROP_ASPECT = (3.0 / 4.0, 4.0 / 3.0)
_CROP_TRIES = 10
# Shifts and colour changes have their own random numbers.
_SHIFT, _COLOUR = 2, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation(Settings):
    """Random changes to training images, applied before normalisation.

    Example:
        >>> import tas_tf
        >>> tas_tf.Augmentation(pad_crop=4, flip=True).pad_crop
        4
    """

    pad_crop: int = setting(
        0, "Pads training images with this many black pixels and cuts out a random window of the old size.", at_least=0
    )
    flip: bool = setting(
        False, "Mirrors half of the training images, unless mirroring changes what they show, as for digits."
    )
    random_resized_crop: bool = setting(
        False, "Cuts random windows (8 to 100 % of the area) out of training images and resizes them, as for ImageNet."
    )
    color_jitter: tuple[float, float, float, float] = setting(
        (0.0, 0.0, 0.0, 0.0),
        "Strengths of random changes of brightness, contrast, saturation and hue in training images, such as "
        "0.4,0.4,0.4,0.2 for ImageNet.",
        at_least=0,
    )
    lighting: float = setting(
        0.0,
        "Standard deviation of random colour shifts in training images along the principal components of ImageNet's "
        "pixels, such as 0.1.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.color_jitter[3] > 0.5:
            raise UserError(f"`color_jitter` must end in a hue of at most 0.5. Received: {self.color_jitter[3]}.")
        if self.pad_crop and self.random_resized_crop:
            raise UserError("`pad_crop` and `random_resized_crop` exclude each other. Use at most one of them.")

    @property
    def changes_colours(self) -> bool:
        """Whether images need three channels: red, green and blue."""
        return any(self.color_jitter) or self.lighting > 0

    def check_channels(self, channels: int, name: str) -> None:
        """Checks that images can be changed so.

        Args:
            channels: Channels of the images.
            name: Names the images in the message.

        Raises:
            UserError: If colours are to change in images that aren't red, green and blue.
        """
        if self.changes_colours and channels != 3:
            raise UserError(
                "`color_jitter` and `lighting` are for images of 3 channels, red, green and blue. "
                f"Received: {channels} in `{name}`."
            )


def augment_batch(images: tf.Tensor, augment: Augmentation, *, seed: tf.Tensor, share: Share = WHOLE) -> tf.Tensor:
    """Changes the images of a batch at random.

    Args:
        images: `[batch, height, width, channels]`; must be uint8 if windows are resized or colours change.
        augment: Changes to apply.
        seed: Random seed, two integers.
        share: Which part of a batch `images` is. Parts change as they do in the whole batch, but windows can't be
            resized and colours can't change in a part.

    Returns:
        Changed images, with the shape and type of `images`.
    """
    if augment.random_resized_crop:
        images = random_resized_crop(images, size=tuple(images.shape[1:3]), seed=seed)
    if augment.changes_colours:
        colour_seed = tf.random.fold_in(seed, _COLOUR)
        images = change_colours(images, color_jitter=augment.color_jitter, lighting=augment.lighting, seed=colour_seed)
    if augment.pad_crop or augment.flip:
        shift_seed = tf.random.fold_in(seed, _SHIFT)
        images = shift_and_flip(images, pad=augment.pad_crop, flip=augment.flip, seed=shift_seed, share=share)
    return images


def shift_and_flip(images: tf.Tensor, *, pad: int, flip: bool, seed: tf.Tensor, share: Share = WHOLE) -> tf.Tensor:
    """Pads with black, cuts out a window of the old size, and mirrors, in a single gather for the whole batch.

    Args:
        images: `[batch, height, width, channels]`, any type.
        pad: Pixels added on each side.
        flip: Whether to mirror half of the images.
        seed: Random seed, two integers.
        share: Which part of a batch `images` is.

    Returns:
        Changed images, with the shape and type of `images`.
    """
    height, width, channels = images.shape[1:]
    batch = tf.shape(images)[0]
    shift_seed, flip_seed = tf.unstack(tf.random.split(seed))
    whole = batch * share.count
    rows = slice(share.number * batch, (share.number + 1) * batch)
    shifts = tf.random.stateless_uniform([2, whole], shift_seed, minval=0, maxval=2 * pad + 1, dtype=tf.int32)
    top, left = tf.unstack(shifts[:, rows])
    columns = tf.range(width)[tf.newaxis]
    if flip:
        mirrored = tf.random.stateless_uniform([whole, 1], flip_seed)[rows] < 0.5
        columns = tf.where(mirrored, width - 1 - columns, columns)
    columns = columns + left[:, tf.newaxis]
    lines = tf.range(height)[tf.newaxis] + top[:, tf.newaxis]
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    pixels = tf.reshape(padded, [batch, (height + 2 * pad) * (width + 2 * pad), channels])
    picked = lines[:, :, tf.newaxis] * (width + 2 * pad) + columns[:, tf.newaxis, :]
    gathered = tf.gather(pixels, tf.reshape(picked, [batch, height * width]), axis=1, batch_dims=1)
    return tf.ensure_shape(tf.reshape(gathered, [batch, height, width, channels]), images.shape)


def random_resized_crop(images: tf.Tensor, *, size: tuple[int, int], seed: tf.Tensor) -> tf.Tensor:
    """Cuts a random window out of each image and resizes it.

    Args:
        images: uint8 `[batch, height, width, channels]`.
        size: Height and width to resize to.
        seed: Random seed, two integers.

    Returns:
        uint8 `[batch, *size, channels]`.

    Reference:
        Szegedy et al. 2015, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842
    """
    batch = tf.shape(images)[0]
    boxes = random_boxes(batch, tf.shape(images)[1], tf.shape(images)[2], seed=seed)
    crops = tf.image.crop_and_resize(images, boxes, tf.range(batch), size)
    crops = tf.cast(tf.clip_by_value(tf.round(crops), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(crops, [images.shape[0], *size, images.shape[-1]])


def random_boxes(batch: tf.Tensor, height: tf.Tensor, width: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """Draws one window for each image, or takes the whole image if none of ten tries fits into it.

    Returns:
        Top, left, bottom and right as shares of the distance between the first and the last pixel, `[batch, 4]`.
    """
    size_seed, place_seed = tf.unstack(tf.random.split(seed))
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area_draw, aspect_draw = tf.unstack(tf.random.stateless_uniform([2, batch, _CROP_TRIES], size_seed))
    area = height * width * (_CROP_AREA[0] + area_draw * (_CROP_AREA[1] - _CROP_AREA[0]))
    low, high = (math.log(aspect) for aspect in _CROP_ASPECT)
    aspect = tf.exp(low + aspect_draw * (high - low))
    widths, heights = tf.round(tf.sqrt(area * aspect)), tf.round(tf.sqrt(area / aspect))
    fits = (widths >= 1.0) & (widths <= width) & (heights >= 1.0) & (heights <= height)
    first = tf.argmax(fits, axis=1)
    found = tf.reduce_any(fits, axis=1)
    box_height = tf.where(found, tf.gather(heights, first, axis=1, batch_dims=1), height)
    box_width = tf.where(found, tf.gather(widths, first, axis=1, batch_dims=1), width)
    place = tf.random.stateless_uniform([2, batch], place_seed)
    top = tf.floor(place[0] * (height - box_height + 1.0))
    left = tf.floor(place[1] * (width - box_width + 1.0))
    corners = tf.stack([top, left, top + box_height - 1.0, left + box_width - 1.0], axis=1)
    extent = tf.maximum(tf.stack([height, width, height, width]) - 1.0, 1.0)
    return corners / extent
