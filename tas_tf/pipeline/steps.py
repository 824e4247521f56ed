"""What every step of a run has: a label, a record of what its result was made from, its work and its effort."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tas_tf.errors import speaking_of
from tas_tf.files import read_json
from tas_tf.runs.run import Step
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import recorded
from tas_tf.space.space import SearchSpace

#: Raised when the same settings are recorded under other names or give other results.
VERSION = 2


@dataclass(frozen=True)
class Effort:
    """What a step takes.

    Attributes:
        epochs: Epochs.
        per_epoch: Iterations of each.
        relative: Time of an iteration, in training steps of the unpruned network.
    """

    epochs: int
    per_epoch: int
    relative: float


class RunStep(abc.ABC):
    """A step of a run.

    Args:
        workspace: The run, and what its steps work with.
        label: What the user sees; by default the step's kind, and the budget of a run inside another.
    """

    #: The kind of step, as its label has it.
    kind = ""
    #: Whose settings errors speak of, a section of `RunConfig`.
    section: str | None = None
    #: What a plan says where there is something to do.
    does = "runs"

    def __init__(self, workspace: Workspace, label: str | None = None) -> None:
        self.workspace = workspace
        self.label = label or self.kind

    @property
    @abc.abstractmethod
    def record(self) -> Step:
        """What the result depends on, and whether it is there.

        Raises:
            UserError: It waits for the result of an earlier step.
        """

    @abc.abstractmethod
    def work(self, record: Step) -> None:
        """Makes the result.

        Args:
            record: Of the step; `begin` and `finish` note what was made from what.

        Raises:
            UserError: Something that the step needs is missing, or doesn't fit.
        """

    def effort(self, space: SearchSpace) -> Effort | None:
        """What the step takes; `None` for what isn't counted.

        Args:
            space: What may change of the unpruned network.
        """
        del space

    @property
    def parts(self) -> Sequence[RunStep]:
        """Steps within this one that a plan shows."""
        return ()

    @property
    def is_up_to_date(self) -> bool:
        """Whether the result is there, from the same settings and inputs, and shall stay."""
        return self.stays(self.record)

    def stays(self, record: Step) -> bool:
        """Whether what a record describes is there and shall stay."""
        again = self.workspace.config.overwrite and not self.workspace.keeps_fresh
        return not again and record.status() == "fresh"

    def run(self) -> bool:
        """Does the step unless it is done; whether anything was done.

        Raises:
            UserError: See `work`; or a result from other settings is there and may not be replaced.
        """
        with speaking_of(self.section):
            record = self.record
            if self.stays(record):
                return False
            self.work(record)
            return True

    def begin(self, record: Step) -> None:
        """Prepares the folder of a step that has to run, and notes the settings.

        Raises:
            UserError: A result from other settings is there and may not be replaced, or nothing can be written.
        """
        again = not self.workspace.keeps_fresh or record.status() == "stale"
        record.begin(overwrite=self.workspace.config.overwrite and again)
        self.workspace.keep_settings(record)
        progress = record.checkpoints / "progress.json"
        if progress.exists():
            self.workspace.say(f"{record.name}: goes on after epoch {read_json(progress).get('epochs')}.")


def settings_of(workspace: Workspace, *sections: str, names: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """What a result depends on, for the record of its step.

    Args:
        workspace: The run.
        sections: Sections of its config that count whole.
        names: Settings of the run itself that count.
        **more: Further ones, or a section's own choice of settings.
    """
    config = workspace.config
    always = {name: getattr(config, name) for name in ("precision", "deterministic", *names)}
    return {**{name: recorded(getattr(config, name)) for name in sections}, **always, **more}


def network_settings(workspace: Workspace) -> dict[str, Any]:
    """The network by name; a file counts by its content instead, as an input."""
    config = workspace.config
    return {} if config.model_file else {"network": recorded(config.network)}


def budget_settings(workspace: Workspace) -> dict[str, Any]:
    """The budget; what a file weighs depends on what is put into it."""
    config = workspace.config
    inside = {}
    if config.budget.kind == "bytes":
        inside = {
            "export": {"preprocessing_inside": config.export.preprocessing_inside},
            "data": {"preprocess": config.data.preprocess},
        }
    return {"budget": str(config.budget), **inside}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Merges settings for a record: a section that occurs in several parts gets the entries of all of them."""
    result: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = {**result[name], **value} if both else value
    return result
