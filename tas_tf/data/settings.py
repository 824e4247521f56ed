"""Settings of the images and their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.data.resizing import RESIZE_WAYS
from tas_tf.data.source import SPLITS
from tas_tf.errors import UserError
from tas_tf.settings import Seeded, describe_settings, setting

_PLAIN = Augmentation()


@dataclass(frozen=True, kw_only=True)
class DataSettings(Augmentation, Seeded):
    """Settings of a data set and of what is done to its images."""

    dataset: str = setting(
        "digits",
        "digits (bundled), fashion_mnist, folder:PATH (class folders, or images/ and masks/), csv:FILE, python:FILE "
        "(defines `train` and `test`, as tas_tf.compress takes them), or any data set of TensorFlow Datasets.",
    )
    data_dir: str | None = setting(None, "Folder in which TensorFlow Datasets keeps its files.", recorded=False)
    features: str | None = setting(
        None,
        "Names of the image and of the label in a data set of TensorFlow Datasets that has several, such as "
        "image,coarse_label for cifar100.",
        before=None,
    )
    label_columns: tuple[str, ...] = setting(
        (),
        "Names of the columns of labels in a table, such as age or red,green,blue; by default the column called label, "
        "class, class_name, category or target, or those called like the outputs of the network; without any, all but "
        "those of paths, splits, weights and inputs.",
        before=(),
    )
    image_size: int | tuple[int, int] | None = setting(
        None,
        "Height and width to resize images to, such as 96 or 48x144; by default the size of the data; of "
        "image files, the size that the model takes; or 32 without data.",
        at_least=1,
    )
    resize: str = setting(
        "auto",
        "How images of other proportions are brought to that size: squash (as Keras's image_dataset_from_directory "
        "does), crop (cuts the borders off) or pad (with black). By default (auto), squash, or for a trained network "
        "the way under which its scores are clearly better.",
        choices=("auto", *RESIZE_WAYS),
        before="crop",
    )
    channels: int | None = setting(
        None,
        "Channels of the images; by default those of the data, or 3 without data. Images in files are read as grey "
        "(1), red, green and blue (3), or with opacity as well (4).",
        at_least=1,
        recorded=False,  # the network, which is recorded, has as many
    )
    cache_dir: str | None = setting(
        None,
        "Folder in which training images too large for memory are kept decoded and resized, so that this isn't done "
        "again in every epoch.",
        recorded=False,
    )
    skip_broken: bool = setting(
        False, "Leaves out image files that can't be read, instead of stopping, and lists them.", before=False
    )
    check_images: bool = setting(
        True,
        "Decodes images that are too large for memory once before anything else, to find those that are damaged; only "
        "those that are new or changed are decoded again.",
        recorded=False,
    )
    test_share: float | None = setting(
        None, "Share of images to hold back for testing, if the data has no test images.", above=0, below=1
    )
    train_limit: int | None = setting(
        None,
        "Uses a fixed subset of this many training images, stratified by class if images have classes.",
        at_least=1,
    )
    preprocess: str = setting(
        "auto",
        "How pixels are mapped to the network's input. By default (auto), a trained network is scored under each kind "
        "and the best is taken if it is clearly better than the others; a network to be trained gets standardise.",
        choices=("auto", *PREPROCESSING_KINDS),
    )
    test_resize: int | None = setting(
        None,
        "Resizes images that aren't augmented to this height and width, such as 256, and cuts out their centre.",
        at_least=1,
    )

    @property
    def augment(self) -> Augmentation:
        """The random changes to training images."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def checked(self) -> tuple[str, ...]:
        """Splits whose images are decoded before anything else.

        Training images that are kept decoded are decoded for that, and once is enough; but those to be left out have to
        be known before.
        """
        if not self.check_images:
            return ()
        return SPLITS if self.cache_dir is None or self.skip_broken else ("test",)

    def __post_init__(self) -> None:
        super().__post_init__()
        originals = [name for name in ("random_resized_crop", "test_resize") if getattr(self, name)]
        if self.cache_dir is not None and originals:
            raise UserError(f"`cache_dir` keeps resized images, but `{originals[0]}` needs whole ones. Leave out one.")

    def check_plain(self, needed: str) -> None:
        """Checks that images aren't changed at random, nor cut.

        Args:
            needed: What such changes need.

        Raises:
            UserError: They are.
        """
        changes = [name for name in describe_settings(Augmentation) if getattr(self, name) != getattr(_PLAIN, name)]
        changes += ["test_resize"] if self.test_resize is not None else []
        if changes:
            raise UserError(f"`{changes[0]}` changes images alone: it needs {needed}. Leave it out.")


def script_file(dataset: str) -> Path | None:
    """The Python file that makes the data of a name, `python:FILE`; `None` for other data sets.

    >>> script_file("python:/home/me/data.py"), script_file("digits")
    (PosixPath('/home/me/data.py'), None)

    Raises:
        UserError: The name of a Python file stands alone.
    """
    kind, _, file = dataset.partition(":")
    if kind.endswith(".py"):
        raise UserError(f"`dataset` must say that it is a Python file. Expected: python:{kind}. Received: {dataset}.")
    return Path(file).expanduser().resolve() if kind == "python" else None
