"""Loads data sets by name."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tas_tf.data.columns import inputs_of
from tas_tf.data.digits import load_digits
from tas_tf.data.folder import load_folder
from tas_tf.data.form import Form
from tas_tf.data.resizing import RESIZE_WAYS, pair
from tas_tf.data.source import SPLITS, Source
from tas_tf.data.suitable import check_classes, check_takes_classes
from tas_tf.data.table import load_table
from tas_tf.errors import UserError
from tas_tf.extras import require_extra
from tas_tf.objectives.objective import Objective

# Up to this size, images are held in memory. Larger data sets are read from disk in every epoch.
MEMORY_LIMIT_BYTES = 1 << 30

_FOLDER_PREFIX = "folder:"
_TABLE_PREFIX = "csv:"


def needs_size(name: str) -> bool:
    """Whether a data set of a name consists of image files, which may have any size.

    >>> needs_size("folder:photos"), needs_size("digits")
    (True, False)
    """
    return name.startswith((_FOLDER_PREFIX, _TABLE_PREFIX))


def load_source(
    name: str,
    objective: Objective | None = None,
    *,
    data_dir: str | None = None,
    features: str | None = None,
    label_columns: Sequence[str] = (),
    image_size: int | tuple[int, int] | None = None,
    test_share: float | None = None,
    resize: str = "squash",
    channels: int | None = None,
    skip_broken: bool = False,
    checked: Sequence[str] = SPLITS,
    streamed: bool = False,
    form: Form | None = None,
) -> Source:
    """Loads a data set by name.

    Args:
        name: `digits`, `folder:PATH`, `csv:FILE`, or a name in TensorFlow Datasets such as `cifar10`.
        objective: What the network is for, which decides how labels are read; by default classes.
        data_dir: TFDS's data folder; by default, TFDS chooses it.
        features: Names of image and label in a TFDS data set that has several, as in `image,coarse_label`.
        label_columns: Names of the columns of labels in a table, see `load_table`.
        image_size: Height and width to resize to, or one number for both; needed for folders and if images vary in
            size.
        test_share: Share of the images, of each class if there are classes, to hold back for testing, if the data has
            no test images. The choice is fixed, since one run's test images must not be another's training images.
        resize: How images are brought to `image_size`, one of `RESIZE_WAYS`.
        channels: Channels of the images, 1 for grey or 3 for colours, or 4 from files; by default those of the data.
        skip_broken: Whether image files that can't be read are left out.
        checked: Splits whose images are decoded once if they aren't held in memory, to find those that are damaged;
            see `tas_tf.data.decodable`.
        streamed: Whether images are read from disk when they are used, even if they fit into memory; `digits` are
            always in memory.
        form: What the network takes, if it has several inputs.

    Raises:
        UserError: If the data set is unknown or unavailable, doesn't suit the network, or the extra `datasets` is
            missing.
    """
    size = None if image_size is None else pair(image_size)
    if size is not None and min(size) < 1:
        raise UserError(f"`image_size` is out of range. Expected at least 1 pixel. Received: {image_size}.")
    if resize not in RESIZE_WAYS:
        raise UserError(f"`resize` must be one of {', '.join(RESIZE_WAYS)}. Received: {resize!r}.")
    if test_share is not None and not 0.0 < test_share < 1.0:
        raise UserError(f"`test_share` is out of range. Expected between 0 and 1. Received: {test_share}.")
    if features is not None and (name == "digits" or name.startswith((_FOLDER_PREFIX, _TABLE_PREFIX))):
        raise UserError(f"`features` is for data sets of TensorFlow Datasets. Received: {features} for {name}.")
    if label_columns and not name.startswith(_TABLE_PREFIX):
        raise UserError(f"`label_columns` is for csv:FILE. Received: {', '.join(label_columns)} for {name}.")
    if form is not None and not name.startswith(_TABLE_PREFIX):
        raise UserError(
            f"`dataset` must be csv:FILE with columns for the inputs of the network, {', '.join(inputs_of(form))}. "
            f"Received: {name}."
        )
    options: dict[str, Any] = {"image_size": size, "test_share": test_share, "resize": resize, "channels": channels}
    options |= {"memory_limit": 0 if streamed else MEMORY_LIMIT_BYTES, "checked": checked}
    if name.startswith(_TABLE_PREFIX):
        options |= {"label_columns": label_columns, "form": form, "skip_broken": skip_broken}
        source = load_table(name.removeprefix(_TABLE_PREFIX), objective, **options)
    elif name.startswith(_FOLDER_PREFIX):
        source = load_folder(name.removeprefix(_FOLDER_PREFIX), objective, skip_broken=skip_broken, **options)
    else:
        check_takes_classes(name, objective)
        source = _load_named(name, data_dir=data_dir, features=features, **options)
    check_classes(source, objective)
    if skip_broken and not needs_size(name):  # it may be an earlier command's, on other data
        note = f"`skip_broken` has no effect on {name}: it is for image files, folder:PATH or csv:FILE."
        source = dataclasses.replace(source, notes=(*source.notes, note))
    return source


def _load_named(name: str, *, data_dir: str | None, features: str | None, **options: Any) -> Source:
    """Loads digits or a data set of TensorFlow Datasets."""
    if name == "digits":
        if options["test_share"] is not None:
            raise UserError("`test_share` can't be used: digits has fixed test images. Leave it out.")
        return load_digits(**{key: options[key] for key in ("image_size", "resize", "channels")})
    require_extra("datasets", purpose=f"The data set {name!r}")
    from tas_tf.data.tfds_source import load_tfds

    return load_tfds(name, data_dir=data_dir, features=features, **options)
