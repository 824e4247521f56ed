"""What a dry run shows: which steps would run, what they cost, and roughly how much time and memory they take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf
from rich.table import Table

from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.errors import UserError
from tas_tf.pipeline.steps import PipelineStep, RunStep
from tas_tf.runs.schedule import Schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.timing.duration import format_duration
from tas_tf.training.distill import compile_network
from tas_tf.training.memory import MEGABYTE, StepMemory, shortage
from tas_tf.training.optimizers import sgd

_TIMED_STEPS = 3
# Time of a training without its steps, in times that it takes to build a network and to trace a step without a teacher.
_STARTS = 1.5
_FRESH = "up to date"
_REFUSED = "refused: see `overwrite`"


def show_plan(workspace: Workspace, steps: Sequence[PipelineStep], schedule: Schedule | None = None) -> None:
    """Prints what the steps would do; writes nothing to the run folder.

    Args:
        workspace: The run.
        steps: Steps of the run, including those for further budgets.
        schedule: How the run uses its time, if the user gave one.

    Raises:
        UserError: A step would fail. If the reason is a result from other settings, the plan is printed first.
    """
    space = workspace.checked_space(workspace.unpruned_network())
    full = CostModel(space)
    # Only what the steps need: another command may have a budget that this one never looks at.
    limited = workspace.at_budgets() if any(step.uses_budget for step in steps) else ()
    limits = [one.cost_and_limit(space) for one in limited]
    plain, start = _time_training(space, workspace)
    source, images = workspace.task.name, workspace.task.num_train
    table = Table(title=f"{space.graph.network} on {source}, {images:,} training images")
    for column in ("step", "state", "epochs or laps", "iterations", "estimated time", "estimated memory"):
        table.add_column(column, justify="left" if column in ("step", "state") else "right")
    refused, memories = [], {}
    for step in _flat(steps):
        effort = step.effort(space)
        if effort is None:
            continue
        state = _state(step)
        seconds = effort.iterations * plain * effort.relative + effort.starts * start
        if state == _FRESH:
            seconds = 0.0
        elif schedule is not None:
            seconds = step.scheduled(schedule) or seconds
        shown = workspace.shared.wording(state, None).replace("`", "")
        memory = step.memory(space) if state != _FRESH else None
        if memory is not None:
            memories[step.label] = memory
        table.add_row(
            *(step.label, shown, str(effort.epochs), f"{effort.iterations:,}", format_duration(seconds)),
            "" if memory is None else f"{memory.total / MEGABYTE:,.0f} MB",
        )
        refused += [step.label] if state == _REFUSED else []
    workspace.shared.console.print(table)
    budgets = f" Budget: {', '.join(amount(cost.kind, limit) for cost, limit in limits)}." if limits else ""
    workspace.say(
        f"Unpruned: {full.full:,} MACs.{budgets} A plain step at batch "
        f"{workspace.config.student.batch_size} took {1000 * plain:.0f} ms here. The estimates don't include the time "
        "to write, check and time files."
    )
    _say_memory(workspace, memories)
    if refused:
        raise _stops(refused[0])


def _say_memory(workspace: Workspace, memories: Mapping[str, StepMemory]) -> None:
    """Says what takes most memory, and warns if there isn't enough."""
    if not memories:
        return
    label, most = max(memories.items(), key=lambda item: item[1].total)
    replicas = workspace.strategy.num_replicas_in_sync
    each = " on each replica" if replicas > 1 else ""
    workspace.say(f"Estimated peak memory of a training step{each}: at most {most}, at {label}.")
    if text := shortage(most, replicas=replicas):
        workspace.say(f"warning: {text}", style="yellow")


def check_replaceable(steps: Sequence[PipelineStep]) -> None:
    """Checks that no step has a result from other settings that it may not replace.

    Args:
        steps: Steps of the run.

    Raises:
        UserError: A step has one.
    """
    for step in _flat(steps):
        if _state(step) == _REFUSED:
            raise _stops(step.label)


def _stops(label: str) -> UserError:
    return UserError(
        f"The run would stop at `{label}`, because its result was made from other settings. Give `overwrite` to make "
        "it again, or another `run_dir`."
    )


def _flat(steps: Sequence[PipelineStep]) -> Iterator[RunStep]:
    """The steps that have a result, each after those within it, as they run."""
    for step in steps:
        yield from step.parts
        if isinstance(step, RunStep):
            yield step


def _state(step: RunStep) -> str:
    """What a step would do, as the plan says it."""
    try:
        status = step.record.status()
    except UserError:
        return step.does  # the step needs the result of an earlier one
    workspace = step.workspace
    if workspace.config.overwrite and (status == "stale" or not workspace.keeps_fresh):
        return "runs again"
    return {"missing": step.does, "unfinished": "continues", "fresh": _FRESH, "stale": _REFUSED}[status]


def _time_training(space: SearchSpace, workspace: Workspace) -> tuple[float, float]:
    """Seconds of a training step of the unpruned network, and of what a training does besides its steps."""
    settings, started = workspace.config.student, time.perf_counter()
    objective = workspace.task.objective
    network = compile_network(build_student(space, Shape.full(space), logits=True), sgd(settings.lr), objective)
    images = tf.random.normal([settings.batch_size, *workspace.task.image_shape])
    labels = tf.zeros([settings.batch_size, *objective.label_shape], objective.label_dtype)
    network.build(images.shape)
    step = tf.function(lambda: network.train_step((images, labels)))
    keras.tree.map_structure(lambda value: value.numpy(), step())
    traced = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        keras.tree.map_structure(lambda value: value.numpy(), step())
    return (time.perf_counter() - traced) / _TIMED_STEPS, _STARTS * (traced - started)
