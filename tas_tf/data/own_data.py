"""Data that a Python file of the user's own makes, in any form that `tas_tf.compress` takes."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.decodable import ELSEWHERE, READS
from tas_tf.data.form import Arrays, Form
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.run_data import RunData
from tas_tf.data.settings import DataSettings, script_file
from tas_tf.data.sized import at_size_of
from tas_tf.data.sources import MEMORY_LIMIT_BYTES
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import StreamedData, open_data
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.scripts import import_file, reason_of

#: Settings that say how data is read from files; the user's file reads it in its own way.
_OF_FILES = (
    *("features", "label_columns", "image_size", "channels", "skip_broken", "check_images", "test_share"),
    *("train_limit", "test_resize"),
)
#: Settings that prepare pixels, and what they are for data that networks take as it is.
_AS_IT_IS: dict[str, Any] = {"preprocess": "none", "resize": "squash"}
#: Data in use: an error in the middle of a training comes from TensorFlow, which doesn't know of it.
_in_use: weakref.WeakSet[OwnData] = weakref.WeakSet()


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
    def of(cls, dataset: str) -> Script | None:
        """Imports the file that a data set's name names.

        Args:
            dataset: Name of a data set. The file of `python:FILE` defines `train` and `test`: data as `tas_tf.compress`
                takes it, or functions without arguments that return such data.

        Returns:
            What the file says; `None` for other data sets.

        Raises:
            UserError: The file is missing, can't be imported, or lacks one of the two.
        """
        file = script_file(dataset)
        if file is None:
            return None
        # Whatever the file draws at random is the same when a run is resumed, and on all workers.
        keras.utils.set_random_seed(0)
        module = import_file(file, "dataset")
        found = {}
        for name in ("train", "test"):
            data = getattr(module, name, None)
            if callable(data) and not isinstance(data, tf.data.Dataset | keras.utils.PyDataset):
                with _reading(file, f"`{name}`"):
                    data = data()
            if data is None:
                raise UserError(
                    f"`dataset`: {file} must define `train` and `test`, data as `tas_tf.compress` takes it or "
                    f"functions that return it. Received: no data for `{name}`."
                )
            found[name] = data
        return cls(file, **found)

    def sized(self, model: keras.Model) -> keras.Model:
        """The network at the size of the training images if it takes any size, else the network itself.

        Raises:
            UserError: The data can't be read, or the network can't take its images.
        """
        with _reading(self.file, "`train`"):
            return at_size_of(self.train, model)


def needs_own_network() -> UserError:
    """The error for a built-in network, which is made for images and classes that are known before."""
    return UserError("`dataset`: the data of a Python file needs a `model` of your own, a .keras or .h5 file.")


@contextlib.contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    """Says where an error comes from: the user's code may raise anything."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"`dataset`: {what} of {file} fails: {reason_of(error, file)}") from error


def trouble_with_own_data(error: Exception) -> UserError | None:
    """Says where a user's file fails because of which TensorFlow stopped; `None` if the error has another cause.

    The data was read once before anything was trained, so that this is something that has changed since.

    Args:
        error: What TensorFlow raised while something ran.
    """
    if not isinstance(error, tf.errors.OpError) or isinstance(error, ELSEWHERE):
        return None
    text = re.sub(r"\{\{function_node.*?\}\}\s*", "", str(error))
    files = {data.file for data in _in_use}
    for file in files:
        lines = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', text)
        if lines or (READS.search(text) and len(files) == 1):
            # What was raised precedes the list of calls, or that of operations.
            said = re.split(r"Traceback \(|\[\[", text)[0].strip().rpartition("\n")[-1]
            place = f" ({file.name}, line {lines[-1]})" if lines else ""
            return UserError(
                f"`dataset`: the data of {file} fails: {said}{place}. It could be read before. Mend what has changed, "
                "and run the same command again, which continues."
            )
    return None


def taken_as_it_is(settings: DataSettings, file: Path) -> DataSettings:
    """The settings of data that a Python file makes: nothing is left to be found out.

    Args:
        settings: As the user gave them.
        file: The file.

    Raises:
        UserError: A setting is for other data.
    """
    for name in _OF_FILES:
        if getattr(settings, name) != getattr(DataSettings, name):
            raise UserError(f"`{name}` is for data that is read from files. Leave it out for {file}.")
    for name, value in _AS_IT_IS.items():
        if getattr(settings, name) not in ("auto", value):
            raise UserError(
                f"`{name}` prepares pixels for networks. Leave it out for {file}, whose images are taken as they are."
            )
    return replace(settings, **_AS_IT_IS)


def _warn_if_inexact(found: StreamedData, file: Path) -> None:
    """Warns if an epoch can't be read again as it was."""
    if found.train.is_told:
        reason = (
            "may change in its `on_epoch_begin` or `on_epoch_end`. Leave them out if all they do is to shuffle: each "
            "epoch has its batches in another order in any case"
        )
    elif found.train.changes_anew or found.surveys[0].varies:
        reason = "gives other images each time that it is read. Leave random changes to flags such as `flip`"
    elif found.surveys[0].reorders:
        reason = (
            "comes in another order each time that it is read. Pass `reshuffle_each_iteration=False` to its `shuffle`: "
            "each epoch is shuffled further in any case"
        )
    else:
        return
    warnings.warn(
        "`dataset`: a run that is interrupted and resumed won't end with exactly the weights of an uninterrupted one. "
        f"`train` of {file} {reason}.",
        stacklevel=4,
    )


@dataclass(frozen=True, eq=False)
class OwnData(StreamedData, RunData):
    """The data of a user's Python file, which networks take as they are.

    Attributes:
        file: Path of the file.
        preprocessing: Nothing is done to images.
    """

    file: Path = field(kw_only=True)
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
            UserError: A setting doesn't suit such data, or the data can't be used, see `open_data`.
        """
        settings = taken_as_it_is(settings, script.file)
        shapes = list(map(len, form.shapes))
        if objective.has_positions or max(shapes) != 3 or shapes.count(3) > 1:
            settings.check_plain("one image per example, and labels of whole images")
        with _reading(script.file, "the data"):
            found = open_data(
                *(script.train, script.test),
                form=form,
                objective=objective,
                augment=settings.augment,
                seed=settings.seed,
                scored="test",
            )
        _warn_if_inexact(found, script.file)
        data = cls(**{one.name: getattr(found, one.name) for one in fields(StreamedData)}, file=script.file)
        _in_use.add(data)
        return data

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.file.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, or of whatever has most axes."""
        return self.form.shapes[self.form.image]

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input by name, if there are several."""
        return self.form.several

    @property
    def resize(self) -> str:
        """Images have the right size already, so that the default is as good as any."""
        return "squash"

    @property
    def notes(self) -> tuple[str, ...]:
        """A line on where the data comes from, since code runs."""
        return (f"`dataset`: {self.file} was imported and makes the data.",)

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return self.surveys[-1].num_examples

    @property
    def is_streamed(self) -> bool:
        """Whether the test images aren't arrays, or too large: arrays may be mapped from files."""
        size = 4 * self.num_test * math.prod(self.image_shape)
        return not self.validation.is_mixed or size > MEMORY_LIMIT_BYTES

    def test_arrays(self, limit: int | None = None, *, raw: bool = False) -> tuple[Arrays, np.ndarray]:
        """Returns test images, for several inputs by name, and labels in memory, drawn at random; see `RunData`."""
        del raw  # refused when the data was loaded
        examples = self.test().unbatch()
        if limit is not None and limit < self.num_test:
            drawn = np.zeros(self.num_test, bool)
            drawn[np.random.default_rng(0).choice(self.num_test, limit, replace=False)] = True
            is_drawn = tf.constant(drawn)
            examples = examples.enumerate().filter(lambda number, _: is_drawn[number]).map(lambda _, example: example)
        return self._arrays(examples)

    def train_images(self, limit: int, *, raw: bool = False) -> Arrays:
        """Returns training images, shuffled within the buffer; see `RunData`."""
        del raw
        return self._arrays(self._plain(self._train_examples(None).take(limit).batch(128)).unbatch())[0]

    def _arrays(self, examples: tf.data.Dataset) -> tuple[Arrays, np.ndarray]:
        images, labels = map(np.stack, zip(*examples.as_numpy_iterator(), strict=True))
        return self.form.unpack(images) if self.form.is_packed else images, labels
