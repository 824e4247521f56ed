"""Saves the state that must survive a killed training run: variables, optimizer slots, epoch and history."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json

_ADVICE = "Use `overwrite` to start again, or another `run_dir`."


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epochs: Number of finished epochs.
        stopped: Whether a callback ended the run early.
        history: Logged values by name, one for each finished epoch.
    """

    epochs: int = 0
    stopped: bool = False
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def list_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns `model.optimizer` and `model.optimizers` without duplicates."""
    found = [getattr(model, "optimizer", None), *getattr(model, "optimizers", ())]
    unique = {id(optimizer): optimizer for optimizer in found if optimizer is not None}
    return list(unique.values())


class EpochCheckpoints:
    """Saves and restores a model and its optimizers at the end of epochs.

    `progress.json` names its checkpoint and is replaced last, so the two match even if the process is killed while
    saving. All variables are saved, including the layers' random seeds. Python state, such as that of callbacks, isn't.

    Args:
        directory: Folder for this run only; created if missing.
        model: Built model with built optimizers. An optimizer that is built later would be reset silently.

    Raises:
        UserError: If the folder can't be written.
    """

    def __init__(self, directory: str | Path, model: keras.Model):
        self._directory = Path(directory)
        self._groups = {"model": model.variables}
        for number, optimizer in enumerate(list_optimizers(model)):
            self._groups[f"optimizer_{number}"] = optimizer.variables
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Can't create the folder {self._directory}: {error.strerror}.") from error
        self._checkpoint = tf.train.Checkpoint(
            **{name: [variable.value for variable in group] for name, group in self._groups.items()}
        )
        # Keep two: `progress.json` names the older one while the newer one is being written.
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._directory), max_to_keep=2)

    def save(self, progress: Progress) -> None:
        """Saves the variables together with `progress`."""
        path = self._manager.save(checkpoint_number=progress.epochs)
        record = {
            **dataclasses.asdict(progress),
            "checkpoint": Path(path).name,
            "variables": self._signature(),
        }
        write_json(self._progress_path, record)

    def restore(self) -> Progress:
        """Restores the last saved state, if there is one.

        Returns:
            The saved progress, or an empty one.

        Raises:
            UserError: If the saved state doesn't fit the model or is damaged.
        """
        if not self._progress_path.exists():
            return Progress()
        record = read_json(self._progress_path)
        try:
            saved_signature = record["variables"]
            checkpoint_path = str(self._directory / record["checkpoint"])
            progress = Progress(**{key: record[key] for key in ("epochs", "stopped", "history")})
        except (KeyError, TypeError) as error:
            raise UserError(f"{self._progress_path} is damaged. {_ADVICE}") from error
        self._check_signature(saved_signature)
        try:
            self._checkpoint.restore(checkpoint_path).assert_consumed()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise UserError(f"The checkpoint {checkpoint_path} can't be read. {_ADVICE}") from error
        return progress

    @property
    def _progress_path(self) -> Path:
        return self._directory / "progress.json"

    def _signature(self) -> list[list]:
        return [
            [f"{name}: {variable.path}", list(variable.shape), str(variable.dtype)]
            for name, group in self._groups.items()
            for variable in group
        ]

    def _check_signature(self, saved: Sequence[Sequence]) -> None:
        expected = self._signature()
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
