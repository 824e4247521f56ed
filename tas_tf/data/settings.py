"""Settings of the images and their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.settings import Seeded, setting


@dataclass(frozen=True, kw_only=True)
class DataSettings(Augmentation, Seeded):
    """Settings of a data set and of what is done to its images."""

    dataset: str = setting(
        "digits", "digits (bundled), fashion_mnist, folder:PATH, or any data set of TensorFlow Datasets."
    )
    data_dir: str | None = setting(None, "Folder in which TensorFlow Datasets keeps its files.", recorded=False)
    image_size: int | None = setting(
        None, "Height and width to resize images to; by default the size of the data, or 32 without data.", at_least=1
    )
    test_share: float | None = setting(
        None, "Share of images to hold back for testing, if the data has no test images.", above=0, below=1
    )
    train_limit: int | None = setting(None, "Uses a fixed, stratified subset of this many training images.", at_least=1)
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
