"""Loads data sets by name."""

from tas_tf.data.digits import load_digits
from tas_tf.data.folder import load_folder
from tas_tf.data.source import Source
from tas_tf.errors import UserError
from tas_tf.extras import require_extra

# Up to this size, images are held in memory. Larger data sets are read from disk in every epoch.
MEMORY_LIMIT_BYTES = 1 << 30

_FOLDER_PREFIX = "folder:"


def load_source(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    test_share: float | None = None,
) -> Source:
    """Loads a data set by name.

    Images of another size are cut to their central square and resized to `image_size`.

    Args:
        name: `digits`, `folder:PATH`, or a name in TensorFlow Datasets such as `cifar10`.
        data_dir: TFDS's data folder; by default, TFDS chooses it.
        image_size: Height and width to resize to; needed for folders and if images vary in size.
        test_share: Share of each class to hold back for testing, if the data has no test images. The choice is fixed,
            since one run's test images must not be another's training images.

    Raises:
        UserError: If the data set is unknown or unavailable, isn't an image classification task, or the extra
            `datasets` is missing.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"`image_size` is out of range. Expected at least 1 pixel. Received: {image_size}.")
    if test_share is not None and not 0.0 < test_share < 1.0:
        raise UserError(f"`test_share` is out of range. Expected between 0 and 1. Received: {test_share}.")
    if name == "digits":
        if test_share is not None:
            raise UserError("`test_share` can't be used: digits has fixed test images. Leave it out.")
        return load_digits(image_size=image_size)
    options = {"image_size": image_size, "test_share": test_share, "memory_limit": MEMORY_LIMIT_BYTES}
    if name.startswith(_FOLDER_PREFIX):
        return load_folder(name.removeprefix(_FOLDER_PREFIX), **options)
    require_extra("datasets", purpose=f"The data set {name!r}")
    from tas_tf.data.tfds_source import load_tfds

    return load_tfds(name, data_dir=data_dir, **options)
