"""Data that a Python file of the user's own makes, in any form that `tas_tf.compress` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Arrays, Form
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.run_data import RunData
from tas_tf.data.settings import DataSettings
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import StreamedData, open_data
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.scripts import import_file

#: What `dataset` begins with.
PREFIX = "python:"
#: Settings that say how data is read from files; the user's file reads it in its own way.
_OF_FILES = ("features", "label_columns", "image_size", "channels", "skip_broken", "test_share", "train_limit")
_OF_FILES += ("test_resize",)
_FROM_FILE = "which a Python file prepares itself"


@dataclass(frozen=True, eq=False)
class Script:
    """What a user's Python file says of the data.

    Attributes:
        file: Path of the file.
        train: Training data.
        test: Data for scores.
    """

    file: Path
    train: UserData = field(repr=False)
    test: UserData = field(repr=False)

    @classmethod
    def read(cls, dataset: str) -> Script:
        """Imports the file that a data set's name names.

        Args:
            dataset: `python:FILE`. The file defines `train` and `test`: data as `tas_tf.compress` takes it, or
                functions without arguments that return such data.

        Raises:
            UserError: The file is missing, can't be imported, or lacks one of the two.
        """
        file = Path(dataset.removeprefix(PREFIX))
        module = import_file(file, "dataset")
        lacking = [name for name in ("train", "test") if not hasattr(module, name)]
        if lacking:
            raise UserError(
                f"`dataset`: {file} must define `train` and `test`, data as `tas_tf.compress` takes it or functions "
                f"that return it. Received: a file without `{lacking[0]}`."
            )
        return cls(file, *(_called(file, name, getattr(module, name)) for name in ("train", "test")))


def _called(file: Path, name: str, data: Any) -> UserData:
    """The data, or what a function returns."""
    if isinstance(data, (tf.data.Dataset, tuple, list)) or not callable(data):
        return data
    try:
        return data()
    except Exception as error:  # the user's code may raise anything
        raise UserError(
            f"`dataset`: `{name}` in {file} fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


@dataclass(frozen=True, eq=False)
class OwnData(StreamedData, RunData):
    """The data of a user's Python file, which networks take as they are.

    Attributes:
        preprocessing: Nothing is done to them.
    """

    preprocessing: Preprocessing = field(default=Preprocessing("none"), kw_only=True)

    @classmethod
    def load(cls, script: Script, settings: DataSettings, *, form: Form, objective: Objective) -> Self:
        """Checks the data in one pass over it.

        Args:
            script: The user's file.
            settings: Settings of the run's data, of which seed and augmentation count.
            form: What the network takes and returns.
            objective: What networks are trained for.

        Raises:
            UserError: A setting doesn't suit such data, or see `open_data`.
        """
        unused = next((name for name in _OF_FILES if getattr(settings, name) != getattr(DataSettings, name)), None)
        if unused is not None:
            raise UserError(f"`{unused}` is for data that is read from files. Leave it out for {script.file}.")
        if settings.preprocess not in ("auto", "none") or settings.resize not in ("auto", "squash"):
            name = "preprocess" if settings.preprocess not in ("auto", "none") else "resize"
            raise UserError(
                f"`{name}` prepares pixels for networks. Leave it out for {script.file}, whose images are taken as "
                "they are."
            )
        augment = settings.augment
        is_image = len(form.shapes[form.image]) == 3
        if not is_image or objective.has_positions or [*map(len, form.shapes)].count(3) > 1:
            settings.check_unchanged()
        opened = open_data(
            script.train,
            script.test,
            form=form,
            objective=objective,
            augment=augment if augment != Augmentation() else None,
            seed=settings.seed,
            scored="test",
        )
        return cls(**{one.name: getattr(opened, one.name) for one in fields(StreamedData)})

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, or of whatever has most axes."""
        return self.form.shapes[self.form.image]

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input by name, if there are several."""
        return dict(zip(self.form.inputs, self.form.shapes, strict=True)) if self.form.is_packed else {}

    @property
    def has_classes(self) -> bool:
        """Whether each image has a class."""
        return bool(self.surveys[0].counts)

    @property
    def resize(self) -> str:
        """Images have the right size already, so that the default is as good as any."""
        return "squash"

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: what is wrong with the data is an error or a warning."""
        return ()

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return self.surveys[-1].num_examples

    @property
    def is_streamed(self) -> bool:
        """Yes: they may be larger than memory."""
        return True

    def test_arrays(self, limit: int | None = None, *, raw: bool = False) -> tuple[Arrays, np.ndarray]:
        """Returns the first test images, for several inputs by name, and labels in memory; see `RunData`."""
        self._check_not_raw(raw)
        return self._arrays(self.test(), limit)

    def train_images(self, limit: int, *, raw: bool = False) -> Arrays:
        """Returns training images, shuffled within the buffer; see `RunData`."""
        self._check_not_raw(raw)
        batch = min(limit, self.num_train, 128)
        return self._arrays(self.calibration(batch, -(-limit // batch)), limit)[0]

    def _check_not_raw(self, raw: bool) -> None:
        if raw:
            raise UserError(f"`preprocessing_inside` puts preprocessing into files, {_FROM_FILE}. Leave it out.")

    def _arrays(self, batches: tf.data.Dataset, limit: int | None) -> tuple[Arrays, np.ndarray]:
        examples = batches.unbatch() if limit is None else batches.unbatch().take(limit)
        images, labels = map(np.stack, zip(*examples.as_numpy_iterator(), strict=True))
        return self.form.unpack(images) if self.form.is_packed else images, labels
