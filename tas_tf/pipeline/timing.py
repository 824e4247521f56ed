"""Plans the steps of a run into the time that the user gave."""

from __future__ import annotations

import time
from dataclasses import replace

from tas_tf import workers
from tas_tf.baselines.rivals import RIVALS
from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.pipeline.baseline_shapes import brief_steps, tries_shapes
from tas_tf.pipeline.quantising import QAT_FORMAT
from tas_tf.proposals.shortlist import Proposer
from tas_tf.race.race import MOST_SCORED
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_record
from tas_tf.runs.schedule import Schedule, load_schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.space.shape import Shape
from tas_tf.timing.duration import format_duration, parse_duration
from tas_tf.timing.pace import Pace, measure_pace
from tas_tf.timing.plan import TimePlan, Workload, check_enough, epochs_within
from tas_tf.training.network import logits_of

#: Share of the time that goes to a teacher that has to be trained first.
_TEACHER_SHARE = 0.3
# Seconds of the report; time to export a file, in times that the check takes which converts the network.
_REPORT, _EXPORT = 5.0, 0.8
# Part of the time that stays unplanned.
_MARGIN = 0.03


def fit_into_time(workspace: Workspace, *, chosen_by: str = "`recipe`=paper") -> tuple[Workspace, Schedule | None]:
    """Sets proposals and epochs so that the run fits into `time`, and says the plan. Nothing is written.

    Args:
        workspace: The run.
        chosen_by: What chose the recipe, for messages, if that is a differentiable search.

    Returns:
        The run with other settings, and its schedule; without `time`, the same run.

    Raises:
        UserError: The time isn't enough, or can't be combined with other settings.
    """
    config = workspace.config
    if config.time is None:
        return workspace, None
    if config.shape:
        raise UserError("`time` plans a race and what follows. Leave out `time`, or `shape`.")
    if not config.races:
        raise UserError(
            f"`time` plans a race and what follows; {chosen_by} chooses a differentiable search instead. Leave out "
            f"`time`, or {chosen_by}."
        )
    if workers.count() > 1:
        raise UserError("`time` plans the run of a single machine. Leave out `time`, or `strategy`=multi_worker.")
    if config.race.searched:
        raise UserError("`time` doesn't plan a differentiable search. Leave out `searched`, or `time`.")
    found = None if config.overwrite else load_schedule(config)
    schedule = found or _make_schedule(workspace, parse_duration(config.time))
    used = f", {format_duration(found.used)} of it used" if found else ""
    steps = [
        str(TimePlan(schedule.proposals, schedule.epochs, schedule.race_seconds, schedule.student_seconds)),
        f"files and report {format_duration(schedule.export_seconds)}",
    ]
    if schedule.random_seconds:
        steps.insert(1, f"brief trainings of random shapes {format_duration(schedule.random_seconds)}")
    if schedule.teacher_seconds:
        steps.insert(0, f"teacher {format_duration(schedule.teacher_seconds)} ({schedule.teacher_epochs} epochs)")
    each = " for each budget" if len(config.budgets) > 1 else ""
    without = f"; without the fine-tuning for {QAT_FORMAT}" if QAT_FORMAT in config.export.formats else ""
    workspace.say(f"Plan for {config.time}{used}: {', '.join(steps)}{each}{without}.")
    return replace(workspace, config=schedule.applied(config)), schedule


def _make_schedule(workspace: Workspace, seconds: float) -> Schedule:
    """Measures how fast this machine is, and plans.

    Raises:
        UserError: The time isn't enough.
    """
    config, task = workspace.config, workspace.task
    workspace.say("Measuring how long training steps take.")
    network = workspace.unpruned_network() if config.teacher_from else workspace.network
    started = time.monotonic()
    workspace.check_deployable(network)
    conversion = time.monotonic() - started
    space = workspace.checked_space(network, anew=True)
    # The widest student of all budgets, so that none takes longer.
    proposers = [Proposer(*one.cost_and_limit(space), **one.proposing(space)) for one in workspace.at_budgets()]
    cost, started = CostModel(space), time.monotonic()
    shape = max((one.shortlist(1)[0].shape for one in proposers), key=cost)
    proposing = (time.monotonic() - started) / len(proposers)
    with workspace.strategy.scope():
        teacher = logits_of(network, space) if config.kd else None
    options = {"strategy": workspace.strategy, "scored_on": task.held_out(config.race.race_share, MOST_SCORED)}
    pace = measure_pace(space, shape, task, config.student, teacher=teacher, **options)
    used = workspace.shared.lap()
    available = seconds * (1 - _MARGIN) - used
    budgets = len(config.budgets)
    unpruned = sum(RIVALS[name].shape == "full" for name in config.rivals)
    students = 1 + len(config.rivals) - unpruned + unpruned * cost.full / cost(shape)
    taught = config.kd * (1 + sum(RIVALS[name].kd for name in config.rivals))
    export = _REPORT + (2 + len(config.rivals)) * len(config.export.formats) * conversion * _EXPORT
    more = {"students": students, "taught": taught, "proposing": proposing}
    workload = Workload.of(pace, config.race, task, config.student, **more)
    random = _seconds_of_random_shapes(workspace, pace, proposing)
    needed = budgets * (workload.shortest + random + export)
    teacher_epochs, teacher_warmup, teacher_seconds = 0, 0, 0.0
    if not config.teacher_from and not config.takes_over and (trained := _training_of_teacher(config)):
        teacher_epochs, teacher_warmup = trained  # it isn't trained again
    elif not config.teacher_from and not config.takes_over:
        whole = measure_pace(space, Shape.full(space), task, config.teacher, **options)
        used += workspace.shared.lap()
        available = seconds * (1 - _MARGIN) - used
        _, per_epoch = task.training(config.teacher.batch_size)
        needed = max(needed + whole.seconds(1, 1, per_epoch), needed / (1 - _TEACHER_SHARE))
        teacher_epochs = epochs_within(_TEACHER_SHARE * available, whole, per_epoch)
        teacher_warmup = min(config.teacher.warmup_epochs, teacher_epochs - 1)
        teacher_seconds = whole.seconds(1, 1, teacher_epochs * per_epoch, epochs=teacher_epochs)
    also = f", and {format_duration(budgets * random)} for `random_shapes` and `random_epochs`" if random else ""
    check_enough((used + needed) / (1 - _MARGIN), seconds, also)
    plan = workload.plan((available - teacher_seconds) / budgets - random - export)
    return Schedule(
        time=config.time,
        seconds=seconds,
        used=used,
        students=students,
        teacher_epochs=teacher_epochs,
        teacher_warmup=teacher_warmup,
        steps_per_epoch=workload.steps_per_epoch,
        taught=taught,
        teacher_seconds=teacher_seconds,
        random_seconds=random,
        export_seconds=export,
        **vars(pace),
        **vars(plan),
    )


def _seconds_of_random_shapes(workspace: Workspace, pace: Pace, proposing: float) -> float:
    """Seconds in which the best of several random shapes is chosen for a budget; 0 if there is no such rival."""
    if not any(tries_shapes(RIVALS[name].shape, workspace) for name in workspace.config.rivals):
        return 0.0
    count, epochs = workspace.config.baseline.random_shapes, workspace.config.baseline.random_epochs
    return count * (proposing + pace.seconds(1, 1, brief_steps(workspace), epochs=epochs))


def _training_of_teacher(config: RunConfig) -> tuple[int, int] | None:
    """Epochs for which the teacher in the run's folder was trained, and those of warm-up; `None` if there is none."""
    record = config.run.metrics("teacher").with_name("digest.json")
    if not config.run.teacher_model.exists() or not record.exists():
        return None
    training = read_record(record)["settings"].get("teacher")
    return None if training is None else (training["epochs"] + training["warmup_epochs"], training["warmup_epochs"])
