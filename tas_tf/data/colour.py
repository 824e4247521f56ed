"""Random changes to the colours of training images, stateless and determined by a seed."""

import itertools
from collections.abc import Callable

import tensorflow as tf

#: Weights of red, green and blue when converting to grey (ITU-R 601).
_GREY = (0.299, 0.587, 0.114)
#: Principal components of ImageNet's pixels: standard deviations on the scale 0 to 1, and directions in columns.
_LIGHT_SCALES = (0.2175, 0.0188, 0.0045)
_LIGHT_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_ORDERS = tuple(itertools.permutations(range(4)))


def change_colours(
    images: tf.Tensor, *, color_jitter: tuple[float, float, float, float], lighting: float, seed: tf.Tensor
) -> tf.Tensor:
    """Jitters the colours of each image, then shifts its lighting.

    Args:
        images: uint8 `[batch, height, width, 3]`.
        color_jitter: Strengths for `draw_factors`; all 0 turns jitter off.
        lighting: Standard deviation of the amounts for `shift_lighting`; 0 turns shifts off.
        seed: Random seed, two integers.

    Returns:
        Changed images, uint8 `[batch, height, width, 3]`.
    """
    jitter_seed, order_seed, light_seed = tf.unstack(tf.random.split(seed, 3))
    batch = tf.shape(images)[0]
    colours = tf.cast(images, tf.float32)
    if any(color_jitter):
        factors = draw_factors(batch, color_jitter, seed=jitter_seed)
        number = tf.random.stateless_uniform([], order_seed, maxval=len(_ORDERS), dtype=tf.int32)
        colours = jitter_colours(colours, factors, order=tf.constant(_ORDERS)[number])
    if lighting:
        colours = shift_lighting(colours, lighting * tf.random.stateless_normal([batch, 3], light_seed))
    return tf.ensure_shape(tf.cast(tf.round(colours), tf.uint8), images.shape)


def draw_factors(batch: tf.Tensor, strengths: tuple[float, float, float, float], *, seed: tf.Tensor) -> tf.Tensor:
    """Draws how much each image changes.

    Args:
        batch: Number of images.
        strengths: Strengths of brightness, contrast, saturation and hue. The first three factors are uniform between
            `1 - strength` (at least 0) and `1 + strength`, the shift of hue between `-strength` and `strength`.
        seed: Random seed, two integers.

    Returns:
        Three factors and the shift of hue, `[batch, 4]`.
    """
    low = tf.constant([*(max(0.0, 1.0 - one) for one in strengths[:3]), -strengths[3]])
    high = tf.constant([*(1.0 + one for one in strengths[:3]), strengths[3]])
    return low + tf.random.stateless_uniform([batch, 4], seed) * (high - low)


def jitter_colours(images: tf.Tensor, factors: tf.Tensor, *, order: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue.

    Brightness scales pixels. Contrast scales their difference from the mean of the grey image, and saturation their
    difference from the grey image. Hue is rotated by a share of the full circle. Each change is clipped to 0 to 255.

    Args:
        images: float32 `[batch, height, width, 3]`, 0 to 255.
        factors: Result of `draw_factors`, `[batch, 4]`.
        order: Order of the four changes, a permutation of 0 (brightness) to 3 (hue), `[4]`.

    Returns:
        Changed images, float32 `[batch, height, width, 3]`, 0 to 255.

    Reference:
        `torchvision.transforms.ColorJitter`, https://docs.pytorch.org/vision/stable/transforms.html
    """

    def apply(number: int, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[], tf.Tensor]:
        return lambda: tf.clip_by_value(function(images, factors[:, number, None, None, None]), 0.0, 255.0)

    shape = images.shape
    for place in range(4):
        changes = [apply(number, change) for number, change in enumerate((_brighten, _contrast, _saturate, _turn_hue))]
        images = tf.ensure_shape(tf.switch_case(order[place], changes), shape)
    return images


def shift_lighting(images: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
    """Adds one colour to all pixels of an image, along the principal components of ImageNet's pixels.

    Args:
        images: float32 `[batch, height, width, 3]`, 0 to 255.
        amounts: Shift along each component, in units of its standard deviation, `[batch, 3]`.

    Returns:
        Changed images of the same shape, clipped to 0 to 255.

    Reference:
        Krizhevsky et al. 2012, section 4.1, "ImageNet classification with deep convolutional neural networks"
    """
    along = amounts * tf.constant(_LIGHT_SCALES)
    shifts = 255.0 * tf.linalg.matmul(along, tf.constant(_LIGHT_DIRECTIONS), transpose_b=True)
    return tf.clip_by_value(images + shifts[:, tf.newaxis, tf.newaxis], 0.0, 255.0)


def _brighten(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return images * factor


def _contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(_grey(images), axis=(1, 2), keepdims=True)
    return mean + factor * (images - mean)


def _saturate(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    grey = _grey(images)
    return grey + factor * (images - grey)


def _turn_hue(images: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    hue, saturation, value = tf.split(tf.image.rgb_to_hsv(images / 255.0), 3, axis=-1)
    hue = tf.math.floormod(hue + share, 1.0)
    return 255.0 * tf.image.hsv_to_rgb(tf.concat([hue, saturation, value], axis=-1))


def _grey(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(images * tf.constant(_GREY), axis=-1, keepdims=True)
