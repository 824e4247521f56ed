"""What steps of a run have: a label and, if they have a result to keep, a record of what it depends on."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.settings import script_file
from tas_tf.errors import UserError, speaking_of
from tas_tf.runs.config import RunConfig
from tas_tf.runs.origins import hash_content
from tas_tf.runs.records import read_record
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import Schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import describe_settings, recorded
from tas_tf.space.space import SearchSpace
from tas_tf.timing.plan import DECIDED
from tas_tf.training.checkpoint import saved_progress
from tas_tf.training.memory import StepMemory
from tas_tf.training.settings import ChangingDistillation

#: Version of all results. Raise it when settings are recorded under other names or give other results.
VERSION = 2
#: Settings that matter only with a teacher.
DISTILLATION = tuple(describe_settings(ChangingDistillation))


@dataclass(frozen=True)
class Effort:
    """How much work a step is.

    Attributes:
        epochs: Number of epochs; of a race, the number of laps.
        iterations: Number of iterations.
        relative: Time of an iteration, in training steps of the unpruned network.
        starts: Time besides the iterations, in starts of a training: building, tracing and scoring a network.
    """

    epochs: int
    iterations: int
    relative: float
    starts: float = 1.0


class PipelineStep(abc.ABC):
    """A step of the pipeline.

    Args:
        workspace: The run.
        label: Name of the step for the user; by default its kind.
    """

    #: Kind of step, which is the default label.
    kind = ""

    def __init__(self, workspace: Workspace, label: str | None = None) -> None:
        self.workspace = workspace
        self.label = label or self.kind

    @property
    def uses_budget(self) -> bool:
        """Whether the step, or its estimated time, depends on the budget."""
        return False

    @abc.abstractmethod
    def run(self) -> bool:
        """Runs the step if there is something to do; returns whether it ran.

        Raises:
            UserError: Something that the step needs is missing or doesn't fit.
        """

    @property
    def parts(self) -> Sequence[RunStep]:
        """Steps within this one that run before its own work; a plan shows them too."""
        return ()


class RunStep(PipelineStep):
    """A step with a result, which is made only if it isn't there or was made from other settings or inputs."""

    #: Section of `RunConfig` that arguments in errors belong to.
    section: str | None = None
    #: What a plan says if the step would run.
    does = "runs"
    #: Whether the step trains, which all workers do together; other steps run on the chief alone.
    trains = False

    @property
    @abc.abstractmethod
    def record(self) -> Step:
        """What the result depends on, and whether it exists.

        Raises:
            UserError: The result of an earlier step is missing.
        """

    @abc.abstractmethod
    def work(self, record: Step) -> None:
        """Makes the result.

        Args:
            record: Record of the step, to `begin` before anything is written and to `finish` at the end.

        Raises:
            UserError: Something that the step needs is missing or doesn't fit.
        """

    def effort(self, space: SearchSpace) -> Effort | None:
        """How much work the step is; `None` if a plan leaves the step out.

        Args:
            space: The search space of the unpruned network.
        """
        del space
        return None

    def memory(self, space: SearchSpace) -> StepMemory | None:
        """Estimated memory of one step of the training; `None` if nothing is trained.

        Args:
            space: The search space of the unpruned network.
        """
        del space
        return None

    def scheduled(self, schedule: Schedule) -> float | None:
        """Seconds that a schedule gives the step; `None` if it doesn't name the step.

        Args:
            schedule: How the run uses its time.
        """
        del schedule
        return None

    @property
    def is_up_to_date(self) -> bool:
        """Whether the result exists, was made from the same settings and inputs, and isn't to be overwritten."""
        return self.stays(self.record)

    def stays(self, record: Step) -> bool:
        """Whether the result of a record is up to date and isn't to be overwritten."""
        again = self.workspace.config.overwrite and not self.workspace.keeps_fresh
        return not again and record.status() == "fresh"

    def run(self) -> bool:
        """Runs the step unless its result is up to date; returns whether it ran.

        Raises:
            UserError: See `work`, or a result from other settings exists and may not be replaced.
        """
        with speaking_of(self.section):
            record = workers.once(lambda: self.record)
            ran = self._run(record) if self.trains else workers.once(lambda: self._run(record))
            workers.wait_for(record.outputs)
            return ran

    def _run(self, record: Step) -> bool:
        if workers.once(lambda: self.stays(record)):
            return False
        self.work(record)
        return True

    def begin(self, record: Step) -> None:
        """Prepares the folder of a step that is about to run, and keeps the settings.

        Raises:
            UserError: A result from other settings exists and may not be replaced, the folder isn't writable, or not
                all workers see it.
        """
        workers.once(lambda: self._begin(record))
        if not workers.wait_for([record.folder]):
            raise UserError(
                f"`run_dir` must be a folder that all workers share. Received: {self.workspace.config.run.path}, which "
                f"worker {workers.number()} doesn't see."
            )

    def _begin(self, record: Step) -> None:
        if record.name != "teacher":
            check_same_data(self.workspace)
        again = not self.workspace.keeps_fresh or record.status() == "stale"
        config = self.workspace.config
        decided = DECIDED if config.outermost.run.plan.exists() else ()
        record.begin(overwrite=config.overwrite and again, decided=decided)
        self.workspace.keep_settings(record)
        if (progress := saved_progress(record.checkpoints)) is not None:
            self.workspace.say(f"{record.name}: continues after {progress}.")


def student_share(workspace: Workspace, space: SearchSpace) -> float:
    """Cost of the student as a share of the unpruned network's: that of the shape given, otherwise the budget."""
    if workspace.config.shape:
        cost = CostModel(space)
        return cost(workspace.load_shape(space)) / cost.full
    cost, limit = workspace.cost_and_limit(space)
    return limit / cost.full


def refuse_shape(config: RunConfig) -> None:
    """Refuses to make a shape for a run that uses a given one.

    Raises:
        UserError: `shape` is given.
    """
    if config.shape:
        raise UserError(
            f"`shape` replaces a search or a baseline. Received: {config.shape}. Leave it out, or train its student "
            "with `distill`."
        )


def settings_of(workspace: Workspace, *sections: str, names: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """The settings that a result depends on, for the record of its step.

    Args:
        workspace: The run.
        sections: Sections of the config to include as a whole.
        names: Settings of the run itself to include.
        **more: Further settings, or a selection from a section.
    """
    config = workspace.config
    always = {name: getattr(config, name) for name in ("precision", "deterministic", *names)}
    found = {**{name: recorded(getattr(config, name)) for name in sections}, **always, **more}
    if "dataset" in found.get("data", {}):
        found["data"] = {**found["data"], "dataset": _recorded_name(config.data.dataset)}
    # Only if they are given, since the records of earlier runs lack them.
    given = {name: getattr(config.network, name) for name in ("task", "loss")}
    given = {name: value for name, value in given.items() if value is not None}
    return merged(found, {"network": given}) if given else found


def network_settings(workspace: Workspace) -> dict[str, Any]:
    """Settings of a built-in network; empty for a file, whose content is an input of the record instead."""
    config = workspace.config
    return {} if config.model_file else {"network": {**recorded(config.network), "channels": config.data.channels}}


def budget_settings(workspace: Workspace) -> dict[str, Any]:
    """The budget; if it is in bytes or time, also the settings that files depend on."""
    config = workspace.config
    inside = {}
    if config.budget.kind == "bytes":
        inside = {
            "export": {"preprocessing_inside": config.export.preprocessing_inside},
            "data": {"preprocess": config.data.preprocess},
        }
    if config.budget.kind == "latency":
        inside = {
            "export": {"preprocessing_inside": config.export.preprocessing_inside},
            "latency": recorded(config.latency),
        }
    return {"budget": str(config.budget), **inside}


def budget_inputs(workspace: Workspace) -> dict[str, Path]:
    """Files that the budget refers to: latencies that were measured on another device."""
    config = workspace.config
    used = config.budget.kind == "latency" and config.latency.table
    return {"latencies": Path(config.latency.table)} if used else {}


def _recorded_name(dataset: str) -> str:
    """The name of a data set in records. A Python file may lie anywhere, since its contents are an input."""
    file = script_file(dataset)
    return dataset if file is None else f"python:{file.name}"


def data_inputs(workspace: Workspace) -> dict[str, Path]:
    """Files that make the data."""
    file = script_file(workspace.config.data.dataset)
    return {} if file is None else {"data": file}


def check_same_data(workspace: Workspace) -> None:
    """Checks that the Python file that makes the data is the one that the teacher was made from.

    Raises:
        UserError: It has changed since.
    """
    run, dataset = workspace.config.teacher_run, workspace.config.data.dataset
    file, record = script_file(dataset), run.path / "teacher" / "digest.json"
    if file is None or not record.exists():
        return
    made = read_record(record)
    same_name = made["settings"].get("data", {}).get("dataset") == _recorded_name(dataset)
    if same_name and made["inputs"].get("data") != hash_content(file):
        raise UserError(
            f"`dataset`: {file.name} has changed since the teacher in {run.path} was made. Expected the same data for "
            "all steps of a run. `pipeline` with `overwrite` makes all of them again."
        )


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Merges settings for a record: a section that occurs in several parts gets the entries of all of them."""
    result: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = {**result[name], **value} if both else value
    return result
