"""The interface between data of any origin and the commands, which also write files and reports."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from tas_tf.data.form import Arrays, Form
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.training_data import TrainingData


class RunData(TrainingData):
    """Training and test images, with all that files and reports say of them.

    Attributes:
        preprocessing: Map from pixels to the network's input.
        form: What networks take; `None` for images alone.
    """

    preprocessing: Preprocessing
    form: Form | None

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image, also if a network has other inputs beside it."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input by name, if there are several; otherwise empty."""

    @property
    @abstractmethod
    def resize(self) -> str:
        """How images of other proportions are brought to `input_shape`, one of `RESIZE_WAYS`."""

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on what isn't read as it lies there."""

    @property
    @abstractmethod
    def num_test(self) -> int:
        """Number of test images."""

    @property
    @abstractmethod
    def is_streamed(self) -> bool:
        """Whether the images may not fit into memory."""

    @abstractmethod
    def test_arrays(self, limit: int | None = None, *, raw: bool = False) -> tuple[Arrays, np.ndarray]:
        """Returns test images, for several inputs by name, and labels in memory.

        Args:
            limit: Largest number of images.
            raw: Whether to return uint8 pixels, 0 to 255, instead of the network's input.
        """

    @abstractmethod
    def train_images(self, limit: int, *, raw: bool = False) -> Arrays:
        """Returns training images in memory, unaugmented; for several inputs by name.

        Args:
            limit: Largest number of images.
            raw: Whether to return uint8 pixels, 0 to 255, instead of the network's input.
        """

    def pictures(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the images among a batch of inputs as they were before `preprocessing`, float32.

        Args:
            inputs: A batch as `test` yields it.
        """
        if self.inputs:
            inputs = self.form.unpack(inputs)[self.form.inputs[self.form.image]]
        return self.preprocessing.undo(inputs)
