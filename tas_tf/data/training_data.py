"""The interface between data of any origin and training, search and scoring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import tensorflow as tf

from tas_tf.objectives.objective import Objective


class EpochsDataset(Protocol):
    """Makes datasets of training batches that go on where a training has stopped."""

    def __call__(self, first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
        """Returns the batches of an epoch and of all following ones.

        Args:
            first_epoch: Number of epochs already done.
            first_step: Number of batches to leave out, also more than an epoch has. Their images aren't read if their
                order is known without.
        """


class TrainingData(ABC):
    """Training images, and other images only for scores, all with labels.

    Every dataset yields batches of float32 images `[batch, height, width, channels]`, ready for the network, and labels
    as `objective` has them: class numbers, int64 `[batch]`, for a classification. Datasets for training are augmented
    and never end; the others are plain and end.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the data in messages."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes 0, 1, ...; of the labels, if there are several for an image; or of the values."""

    @property
    def output_classes(self) -> Mapping[str, Sequence[str]]:
        """Names of the classes of each of several outputs, as far as they are known."""
        return {}

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """What networks are trained for."""

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Number of training images."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Score of the best constant output on the images for scores, such as the share of the most frequent class."""

    @property
    @abstractmethod
    def repeats(self) -> bool:
        """Whether an epoch has the same images in the same order each time that it is read."""

    @abstractmethod
    def training(self, batch_size: int) -> tuple[EpochsDataset, int]:
        """Returns batches of the training images, by first epoch, and the steps of an epoch.

        Raises:
            UserError: `batch_size` doesn't fit the data.
        """

    @abstractmethod
    def searching(self, batch_size: int, share: float = 0.5) -> tuple[EpochsDataset, int]:
        """Returns pairs of batches of two disjoint parts of the training images, and the steps of an epoch.

        Args:
            batch_size: Images in each of the two batches.
            share: Share of the images for the first part, which trains the weights.

        Raises:
            UserError: `batch_size` doesn't fit the smaller part.
        """

    @abstractmethod
    def weights_part(self, share: float) -> Self:
        """Returns the same data with the first part of `searching` as its training images."""

    @abstractmethod
    def held_out(self, share: float, limit: int) -> tf.data.Dataset:
        """Returns at most `limit` images of the second part of `searching`, plain."""

    @abstractmethod
    def calibration(self, batch_size: int, batches: int) -> tf.data.Dataset:
        """Returns a few batches of training images, plain but shuffled, to compute statistics.

        Args:
            batch_size: Images in a batch; limited to the number of training images.
            batches: Number of batches.
        """

    @abstractmethod
    def test(self) -> tf.data.Dataset | None:
        """Returns the images for scores, once and plain; `None` if there are none."""
