"""Saves the state that must survive a killed training run: variables, optimizer slots, progress and history."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.files import read_checked, write_checked
from tas_tf.interruption import REQUESTS
from tas_tf.variables import tensorflow_variable

_ADVICE = "Use `overwrite` to start again, or another `run_dir`."
#: What TensorFlow raises for a checkpoint that is missing, damaged or cut short.
_UNREADABLE = (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError)
_PROGRESS = "progress.json"
# Seconds between questions to the workers.
_PAUSE = 2.0
#: Variables that hold the mean loss and scores of an unfinished epoch.
_METRICS = "metrics"


@dataclasses.dataclass(frozen=True)
class Saving:
    """Where and how often a training is saved.

    Attributes:
        folder: Folder for this training only; created if missing.
        minutes: Time between checkpoints inside an epoch. There is one at the end of each epoch in any case.
        on_saved: Called after each checkpoint.

    Example:
        >>> Saving(Path("runs/mine/student/checkpoints")).within("quantised").folder.name
        'quantised'
    """

    folder: Path
    minutes: float = 10.0
    on_saved: Callable[[], None] = lambda: None

    def within(self, name: str) -> Saving:
        """The same in a folder inside this one."""
        return dataclasses.replace(self, folder=Path(self.folder) / name)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epochs: Number of finished epochs.
        stopped: Whether a callback ended the run early.
        history: Logged values by name, one for each finished epoch.
        steps: Number of finished steps of the epoch after these.
        seconds: Duration of these steps.
        steps_per_epoch: Steps of an epoch, if some of one are finished.
    """

    epochs: int = 0
    stopped: bool = False
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    steps_per_epoch: int = 0

    def check(self, steps_per_epoch: int) -> None:
        """Checks that an unfinished epoch can go on.

        Raises:
            UserError: Epochs have another number of steps now, because the data have changed.
        """
        if self.steps and self.steps_per_epoch != steps_per_epoch:
            raise UserError(
                f"An epoch had {self.steps_per_epoch} steps when the training was interrupted, and has "
                f"{steps_per_epoch} now: the data have changed. {_ADVICE}"
            )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Progress:
        """The progress in a record, also of earlier versions, which saved at the end of epochs alone.

        Raises:
            KeyError: The record lacks a value.
            TypeError: A value is of another type.
        """
        values = {name: record[name] for name in ("epochs", "stopped", "history")}
        later = ("steps", "seconds", "steps_per_epoch")
        progress = cls(**values, **{name: record[name] for name in later if name in record})
        numbers = [progress.epochs, progress.steps, progress.seconds, progress.steps_per_epoch]
        for logged in progress.history.values() if isinstance(progress.history, dict) else [None]:
            numbers += logged if isinstance(logged, list) else [logged]
        if not isinstance(progress.stopped, bool) or not all(isinstance(one, int | float) for one in numbers):
            raise TypeError(f"Not a progress: {progress}.")
        return progress

    def __str__(self) -> str:
        if not self.epochs:
            return f"{self.steps} steps of the first epoch"
        return f"epoch {self.epochs}" + (f" and {self.steps} steps of the next" if self.steps else "")


def list_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns `model.optimizer` and `model.optimizers` without duplicates."""
    found = [getattr(model, "optimizer", None), *getattr(model, "optimizers", ())]
    unique = {id(optimizer): optimizer for optimizer in found if optimizer is not None}
    return list(unique.values())


def variables_of(model: keras.Model) -> dict[str, Sequence[keras.Variable]]:
    """All variables of a built model with built optimizers that a training changes, by what they belong to.

    They include the layers' random seeds, and the metrics. An optimizer that is built later would be reset silently.
    """
    optimizers = {f"optimizer_{number}": one.variables for number, one in enumerate(list_optimizers(model))}
    return {"model": model.variables, **optimizers, _METRICS: model.metrics_variables}


def saved_progress(folder: Path) -> Progress | None:
    """The progress that a folder's newest checkpoint has saved; `None` without one that can be read."""
    with contextlib.suppress(UserError, KeyError, TypeError):
        return Progress.from_json(read_checked(folder / _PROGRESS))
    return None


class Checkpoints:
    """Saves and restores variables, at the end of epochs and inside them.

    `progress.json` names its checkpoint and is replaced last, so the two match even if the process is killed while
    saving. Both have checksums. The one before stays, as `previous.json` with its checkpoint, in case that the disk
    damages the newest.
    Python state, such as that of callbacks, isn't saved.

    Args:
        saving: Where and how often.
        variables: Variables by what they belong to, see `variables_of`.

    Raises:
        UserError: If the folder can't be written.
    """

    def __init__(self, saving: Saving, variables: Mapping[str, Sequence[Any]]) -> None:
        self._directory, self._seconds, self._on_saved = Path(saving.folder), 60 * saving.minutes, saving.on_saved
        self._groups = {name: list(group) for name, group in variables.items()}
        # Before only the chief looks at it: of some variables, TensorFlow asks all workers for the shape.
        self._signature: list[list[Any]] = [
            [f"{name}: {getattr(variable, 'path', variable.name)}", list(variable.shape), _name(variable.dtype)]
            for name, group in self._groups.items()
            for variable in group
        ]
        self._make_folder()
        self._number, self._saved_at = 0, time.monotonic()
        # When the workers are asked whether to save: after which steps, and the time of the last one.
        self._steps, self._asks_at, self._asked_at, self._asked = 0, 1, 0, self._saved_at

    @workers.on_chief
    def _make_folder(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Can't create the folder {self._directory}: {error.strerror}.") from error

    def wanted(self) -> bool:
        """Whether to save after a step: it is time to, or the process is to end. To be called after each step.

        All workers get the same answer. As asking them takes milliseconds, they are asked every other second.
        """
        if workers.count() == 1:
            return self.due or REQUESTS.received is not None
        self._steps += 1
        if self._steps < self._asks_at:
            return False
        now = time.monotonic()
        pause = min(_PAUSE, self._seconds - (now - self._saved_at))
        steps = int(pause * (self._steps - self._asked_at) / max(now - self._asked, 1e-6))
        wanted = workers.any_wants(self.due)
        self._asked_at, self._asked = self._steps, now
        self._asks_at = self._steps + workers.once(lambda: max(1, steps))
        return wanted

    @property
    def due(self) -> bool:
        """Whether the time between checkpoints has passed since the last one, or since the start, on the chief."""
        return workers.is_chief() and time.monotonic() - self._saved_at >= self._seconds

    def save(self, progress: Progress) -> None:
        """Saves the variables together with `progress`. All workers take part, but the chief alone writes.

        Raises:
            OSError: If the disk is full; TensorFlow raises a `tf.errors.OpError`.
        """
        name, failure = f"ckpt-{self._number + 1}", None
        if workers.is_chief():
            self._remove_unnamed()  # what an interrupted save left may be what fills the disk
            try:
                self._checkpoint(self._groups).write(str(self._directory / name))
            except tf.errors.OpError as error:
                failure = error
        else:
            # Saving reads metrics and some statistics on all workers, in the same order.
            with workers.nowhere() as folder:
                self._checkpoint(self._groups).write(f"{folder}/ckpt")
        self._name(name, progress, failure)

    @workers.on_chief
    def _name(self, name: str, progress: Progress, failure: Exception | None) -> None:
        """Makes a checkpoint the newest one, unless it couldn't be written."""
        if failure is not None:
            self._remove_unnamed()
            raise failure
        self._number += 1
        if (newest := _intact(self._progress_path)) is not None:
            write_checked(self._previous_path, newest)
        record = {**dataclasses.asdict(progress), "checkpoint": name, "variables": self._signature}
        write_checked(self._progress_path, record)
        self._remove_unnamed()
        self._saved_at = time.monotonic()
        self._on_saved()

    @workers.on_chief
    def restore(self) -> Progress:
        """Restores the last saved state, if there is one; if it is damaged, the one before, with a warning.

        Of several workers, only the chief restores its variables; see `tas_tf.workers.share`.

        Returns:
            The saved progress, or an empty one.

        Raises:
            UserError: If the saved state doesn't fit the variables, or all saved states are damaged.
        """
        there = [path for path in (self._progress_path, self._previous_path) if path.exists()]
        if not there and (self._directory / "checkpoint").exists():  # of fine-tuning for 8 bits
            raise UserError(f"{self._directory} holds a checkpoint of an earlier version of tas_tf. {_ADVICE}")
        damages = []
        for path in there:
            try:
                progress = self._restore(path)
            except _Damaged as damage:
                damages.append(damage)
                continue
            if damages:
                warnings.warn(f"{damages[0]} The training goes on from the one before, after {progress}.", stacklevel=6)
                self._progress_path.unlink()
            self._saved_at = time.monotonic()
            return progress
        if damages:
            raise UserError(f"{damages[0]} {_ADVICE}") from damages[0]
        return Progress()

    def _restore(self, path: Path) -> Progress:
        try:
            record = read_checked(path)
            signature, name = record["variables"], record["checkpoint"]
            progress, groups = Progress.from_json(record), self._groups
            if not any(entry[0].startswith(f"{_METRICS}: ") for entry in signature):
                groups = {name: group for name, group in groups.items() if name != _METRICS}
            number = int(name.rpartition("-")[2])
        except (UserError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise _Damaged(f"{path} is damaged.") from error
        self._check_signature(signature, groups)
        file = str(self._directory / name)
        # Every checkpoint gets a number of its own, also if the one before the last is used again.
        self._number = max(self._number, number)
        try:
            checkpoint = self._checkpoint(groups)
            # Those of earlier versions hold a counter, of which `read` knows nothing.
            read = checkpoint.read if "steps" in record else checkpoint.restore
            read(file).assert_consumed()
        except _UNREADABLE as error:
            raise _Damaged(f"The checkpoint {file} can't be read.") from error
        return progress

    @property
    def _progress_path(self) -> Path:
        return self._directory / _PROGRESS

    @property
    def _previous_path(self) -> Path:
        return self._directory / "previous.json"

    @staticmethod
    def _checkpoint(groups: Mapping[str, Sequence[Any]]) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(**{name: list(map(tensorflow_variable, group)) for name, group in groups.items()})

    def _remove_unnamed(self) -> None:
        """Removes checkpoints that no record names."""
        records = map(_intact, (self._progress_path, self._previous_path))
        named = {record.get("checkpoint") for record in records if record is not None}
        for path in self._directory.glob("ckpt-*"):
            if path.name.partition(".")[0] in named:
                continue
            if path.is_dir():  # of a write that was killed
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _check_signature(self, saved: Sequence[Sequence], groups: Mapping[str, Sequence[Any]]) -> None:
        expected = [entry for entry in self._signature if entry[0].partition(": ")[0] in groups]
        if len(saved) != len(expected):
            raise UserError(
                f"The checkpoint in {self._directory} belongs to another model: it has {len(saved)} variables, "
                f"the model and its optimizers have {len(expected)}. {_ADVICE}"
            )
        # Only shapes and dtypes must match: paths hold counters (`conv2d_3`) that depend on what else was built.
        for (path, *found), (_, *wanted) in zip(saved, expected, strict=True):
            if found != wanted:
                raise UserError(
                    f"The checkpoint in {self._directory} belongs to another model: {path} is "
                    f"{found[1]} {found[0]}, the model needs {wanted[1]} {wanted[0]}. {_ADVICE}"
                )


class _Damaged(Exception):
    """A saved state can't be read."""


def _intact(path: Path) -> dict[str, Any] | None:
    """A record; `None` if it is missing or damaged."""
    with contextlib.suppress(UserError):
        return read_checked(path)
    return None


def _name(dtype: Any) -> str:
    return getattr(dtype, "name", str(dtype))
