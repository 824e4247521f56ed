"""What must survive a killed training run: variables, optimizer slots, epoch and history, saved as one."""

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
    """How far a run has come.

    Attributes:
        epochs: Finished epochs.
        stopped: Whether a callback ended the run early.
        history: Values by name of log, one for each finished epoch.
    """

    epochs: int = 0
    stopped: bool = False
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)


def list_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns `model.optimizer` and those in `model.optimizers`, each once."""
    found = [getattr(model, "optimizer", None), *getattr(model, "optimizers", ())]
    unique = {id(optimizer): optimizer for optimizer in found if optimizer is not None}
    return list(unique.values())


class EpochCheckpoints:
    """Saves and restores a model and its optimizers at the end of epochs.

    `progress.json` names the checkpoint that belongs to it and is replaced last, so a kill at any moment
    leaves a pair that fits together. All variables are saved, random seeds of layers included. Python state,
    such as that of callbacks, is not.

    Args:
        directory: Folder for this run alone. It is created.
        model: A built model whose optimizers are built as well: a lazily built one would be reset silently.

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
        # Two: the older one is what `progress.json` names while the newer one is being written.
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
            Its progress, or an empty one.

        Raises:
            UserError: If what was saved doesn't fit the model, or is damaged.
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
                f"The checkpoint in {self._directory} is of another model: it has {len(saved)} variables, "
                f"the model and its optimizers have {len(expected)}. {_ADVICE}"
            )
        # Paths hold counters (`conv2d_3`) that depend on what else the process built: only shapes must agree.
        for (path, *found), (_, *wanted) in zip(saved, expected, strict=True):
            if found != wanted:
                raise UserError(
                    f"The checkpoint in {self._directory} is of another model: {path} is "
                    f"{found[1]} {found[0]}, the model needs {wanted[1]} {wanted[0]}. {_ADVICE}"
                )
