"""The data set that a name stands for."""

from tas_tf.data.digits import load_digits
from tas_tf.data.folder import load_folder
from tas_tf.data.source import Source
from tas_tf.errors import UserError
from tas_tf.extras import require_extra

# Images are held in memory up to here; larger sets are read from disk in every epoch.
MEMORY_LIMIT_BYTES = 1 << 30

_FOLDER_PREFIX = "folder:"


def load_source(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    test_share: float | None = None,
    seed: int = 0,
) -> Source:
    """Loads a data set by name.

    Where sizes differ, images are cut to their central square and resized to `image_size`.

    Args:
        name: `digits`, `folder:PATH`, or a name of TensorFlow Datasets such as `cifar10`.
        data_dir: TFDS's data folder; by default TFDS's own choice.
        image_size: Height and width wanted; needed for folders and where images vary in size.
        test_share: Share of each class to hold back for the test, where the data has no test part.
        seed: Which images are held back by `test_share`. Keep it the same for runs that share a teacher or
            are compared: else one run's test images are another's training images.

    Raises:
        UserError: if there is no such data set, it can't be had, it isn't a classification of images, or the extra
            `datasets` is missing.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"`image_size` is out of range. Expected at least 1 pixel. Received: {image_size}.")
    if test_share is not None and not 0.0 < test_share < 1.0:
        raise UserError(f"`test_share` is out of range. Expected between 0 and 1. Received: {test_share}.")
    if name == "digits":
        if test_share is not None:
            raise UserError("`test_share` is of no use: digits has a fixed test part. Leave it out.")
        return load_digits(image_size=image_size)
    options = {
        "image_size": image_size,
        "test_share": test_share,
        "seed": seed,
        "memory_limit": MEMORY_LIMIT_BYTES,
    }
    if name.startswith(_FOLDER_PREFIX):
        return load_folder(name.removeprefix(_FOLDER_PREFIX), **options)
    require_extra("datasets", purpose=f"The data set {name!r}")
    from tas_tf.data.tfds_source import load_tfds

    return load_tfds(name, data_dir=data_dir, **options)
