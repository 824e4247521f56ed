"""The settings that say which images are used, and how."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.settings import Seeded, setting


@dataclass(frozen=True, kw_only=True)
class DataSettings(Augmentation, Seeded):
    """A data set by name, and what is done to its images."""

    dataset: str = setting(
        "digits", "digits (bundled), fashion_mnist, folder:PATH, or any data set of TensorFlow Datasets."
    )
    data_dir: str | None = setting(None, "Where TensorFlow Datasets keeps its files.", recorded=False)
    image_size: int | None = setting(
        None, "Height and width that images are resized to; by default the data's own, without data 32.", at_least=1
    )
    test_share: float | None = setting(
        None, "Share of a folder's images kept for testing, if it has no folder of them.", at_least=0, at_most=1
    )
    train_limit: int | None = setting(None, "Uses a fixed, stratified subset of so many training images.", at_least=1)
    preprocess: str = setting("standardise", "How pixels become the network's input.", choices=PREPROCESSING_KINDS)
    test_resize: int | None = setting(
        None,
        "Resizes images that aren't augmented to this height and width, say 256, and cuts out their centre.",
        at_least=1,
    )

    @property
    def augment(self) -> Augmentation:
        """What is done to training images."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})
