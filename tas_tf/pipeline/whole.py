"""The whole pipeline from a network to files: its steps in order, the checks before them, and running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tas_tf.baselines.rivals import RIVALS
from tas_tf.baselines.shapes import RANKED_KINDS, affordable_baseline
from tas_tf.deploy.settings import format_to_time
from tas_tf.errors import UserError
from tas_tf.extras import require_extra
from tas_tf.importance.order import check_rankable
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.pipeline.quantising import QAT_FORMAT, check_trainable
from tas_tf.pipeline.racing import RaceStep
from tas_tf.pipeline.reporting import ReportStep, by_budget, show_budgets
from tas_tf.pipeline.searched_shapes import DecodeStep, SearchedShapeStep, SearchStep
from tas_tf.pipeline.steps import PipelineStep, RunStep, refuse_shape
from tas_tf.pipeline.training import RivalStep, StudentStep, TeacherStep
from tas_tf.runs.initial_weights import find_initial_weights
from tas_tf.runs.schedule import load_schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.student.build import check_inheritable
from tas_tf.timing.duration import format_duration


def pipeline_steps(workspace: Workspace) -> list[PipelineStep]:
    """All steps of a run, in order: teacher, search or race, and for each budget student, rivals, export and report.

    There is no teacher step with the teacher of another run, and no search or race if a shape is given. A search finds
    the shapes of all budgets; a race is run for each.
    """
    config = workspace.config
    steps: list[PipelineStep] = [] if config.teacher_from else [TeacherStep(workspace)]
    if not config.shape and not config.races:
        steps.append(SearchStep(workspace))
    for one in workspace.at_budgets():
        first = one is workspace
        label = "" if first else f" at {one.config.budget}"
        # A rival that doesn't depend on the budget is trained only for the first one.
        rivals = [name for name in dict.fromkeys(config.rivals) if first or RIVALS[name].shape != "full"]
        if config.races and not config.shape:
            steps.append(RaceStep(one, f"race{label}"))
        elif not first:
            steps.append(DecodeStep(one, workspace, f"shape{label}"))
        steps += [
            StudentStep(one, f"student{label}"),
            *(RivalStep(one, name, f"rival {name}{label}") for name in rivals),
            ExportStep(one, rivals, f"export{label}"),
            ReportStep(one, rivals, f"report{label}"),
        ]
    return steps


def shape_steps(workspace: Workspace) -> list[SearchedShapeStep]:
    """A race for each budget; or the search, and for each further budget a step that decodes a shape from it.

    Raises:
        UserError: The run uses a given shape.
    """
    refuse_shape(workspace.config)
    if workspace.config.races:
        return [RaceStep(one) for one in workspace.at_budgets()]
    _, *others = workspace.at_budgets()
    return [SearchStep(workspace), *(DecodeStep(one, workspace) for one in others)]


def run_pipeline(workspace: Workspace, steps: Sequence[PipelineStep]) -> dict[str, Any]:
    """Runs all steps, each under its own heading, and skips those whose results are up to date.

    Args:
        workspace: The run.
        steps: The steps, from `pipeline_steps`.

    Returns:
        The report, see `by_budget`.

    Raises:
        UserError: See the steps. `check_before` finds most errors before the first step.
    """
    console = workspace.shared.console
    for step in steps:
        console.rule(step.label, align="left")
        if not step.run():
            workspace.say("up to date")
        step.workspace.free_memory()
        workspace.note_time()
    show_budgets(workspace)
    if (schedule := load_schedule(workspace.config)) is not None:
        workspace.say(f"Used {format_duration(schedule.used)} of {schedule.time}.")
    return by_budget([step.report for step in steps if isinstance(step, ReportStep)])


def check_before(workspace: Workspace, steps: Sequence[PipelineStep]) -> None:
    """Finds errors of later steps before hours are spent on earlier ones.

    Args:
        workspace: The run.
        steps: Steps of the run.

    Raises:
        UserError: A step would fail.
    """
    config = workspace.config
    if QAT_FORMAT in config.export.formats:
        require_extra("qat")
        if config.student.recompute:
            raise UserError(
                f"`recompute` isn't supported by the fine-tuning for {QAT_FORMAT}. Leave out one of the two, or run "
                f"`export` with {QAT_FORMAT} later."
            )
    timed = any(budget.kind == "latency" for budget in config.budgets)
    if timed and format_to_time(config.latency.file_format, config.export.formats) is None:
        text = (
            f"`latency.file_format`={config.latency.file_format} must be among `formats`, so that a file of that "
            f"format is written. Received: {', '.join(config.export.formats)}."
        )
        if not (config.latency.table and _is_done(steps)):
            raise UserError(text)
        # Predictions alone were made; the student is as good as ever.
        workspace.say(f"warning: {workspace.shared.wording(text, None)}", style="yellow", markup=False)
    if config.inherit in ("race", "supernet") and set(config.rivals) - {"no_kd"}:
        raise UserError(
            f"`inherit`={config.inherit} works only for the shape found. Expected no `rivals` except no_kd. "
            f"Received: {', '.join(config.rivals)}."
        )
    if not config.shape and config.inherit == ("supernet" if config.races else "race"):
        raise UserError(
            f"`inherit`={config.inherit} has no effect with `recipe`={config.recipe}. Expected auto, none, teacher or "
            f"{'race' if config.races else 'supernet'}."
        )
    if _is_done(steps):
        return
    searches = any(isinstance(step, SearchedShapeStep) for step in steps)
    network = workspace.unpruned_network() if config.teacher_from else workspace.network
    if QAT_FORMAT in config.export.formats and not config.qat.fallback:
        check_trainable("network", network)
    space = workspace.checked_space(network, anew=searches)
    if (config.races if searches else find_initial_weights(config)[0] == "teacher") or config.search.from_teacher:
        check_rankable(network, space, config.ranking)
    if searches:
        for one in workspace.at_budgets():
            one.cost_and_limit(space)
        if config.races:
            workspace.task.weights_part(config.race.race_share).training(config.student.batch_size)
        if not config.races or config.race.searched:
            workspace.task.searching(config.search.batch_size, config.search.split_share)
    else:
        shape = workspace.load_shape(space)
        if find_initial_weights(config)[0] == "teacher":
            check_inheritable(space, shape)
    if as_uniform := [name for name in config.rivals if name in ("uniform", *RANKED_KINDS)]:
        for one in workspace.at_budgets():
            cost, limit = one.cost_and_limit(space)
            among = {"tolerance": 0, "divisor": config.space.width_divisor, "meter": one.meter(space)}
            try:
                affordable_baseline("uniform", cost, limit=limit, **among)
            except UserError as error:
                raise UserError(
                    f"`rivals`: {' and '.join(as_uniform)} can't keep {one.config.budget}. {error} Leave out such "
                    "`rivals`, or give a larger `budget`."
                ) from error


def _is_done(steps: Sequence[PipelineStep]) -> bool:
    """Whether teacher, search and the students of all budgets are up to date."""
    trained = [step for step in steps if type(step) in (TeacherStep, SearchStep, RaceStep, StudentStep)]
    # `all` stops at the first step to run: a later step may need its result to tell whether it is up to date.
    return all(_is_there(step) for step in trained)


def _is_there(step: RunStep) -> bool:
    if isinstance(step, StudentStep) and not step.workspace.config.shape_path.exists():
        return False
    return step.is_up_to_date
