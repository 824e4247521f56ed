"""scikit-learn's handwritten digits, a data set that needs no download."""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split

from tas_tf.data.resizing import changes_proportions, check_channels, resize_images, with_channels
from tas_tf.data.source import ArraySource, make_array_source

# The split is fixed, so that runs with different seeds are scored on the same test images.
_SPLIT_SEED = 0
_TEST_SHARE = 0.2


def load_digits(
    *, image_size: tuple[int, int] | None = None, resize: str = "squash", channels: int | None = None
) -> ArraySource:
    """Loads 1,797 digits, 8 x 8 x 1, with a stratified 80 % for training.

    Args:
        image_size: Height and width to resize to; by default the original 8.
        resize: How they are resized, one of `RESIZE_WAYS`.
        channels: 1, or 3 for digits in shades of grey as colours.
    """
    data = load_sklearn_digits()
    # The original values are 0 to 16.
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    train, test = train_test_split(
        np.arange(len(images)), test_size=_TEST_SHARE, stratify=data.target, random_state=_SPLIT_SEED
    )
    images = resize_images(images, image_size, resize)
    images = with_channels(tf.constant(images), check_channels("digits", 1, channels)).numpy()
    return make_array_source(
        "digits",
        [str(name) for name in data.target_names],
        train=(images[train], data.target[train]),
        test=(images[test], data.target[test]),
        flip_ok=False,
        resize=resize,
        reshaped=image_size is not None and changes_proportions(8, 8, image_size),
    )
