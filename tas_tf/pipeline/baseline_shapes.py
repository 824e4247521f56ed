"""The steps that make a shape without a search: baselines, and the shapes of rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tas_tf.baselines.random_shapes import RandomShape, best_random_shape
from tas_tf.baselines.shapes import RANKED_KINDS, affordable_baseline
from tas_tf.cost.cost_model import MEASURED, CostModel, amount, reported
from tas_tf.files import write_json, write_model
from tas_tf.importance.order import channel_order, reorder
from tas_tf.pipeline.memory import expected_shape, training_memory
from tas_tf.pipeline.steps import (
    DISTILLATION,
    VERSION,
    Effort,
    RunStep,
    budget_inputs,
    budget_settings,
    data_inputs,
    merged,
    network_settings,
    settings_of,
    student_share,
)
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import Schedule
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import recorded
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import budget_figures, real_cost
from tas_tf.training.memory import StepMemory
from tas_tf.training.network import inherited


class BaselineStep(RunStep):
    """Makes a shape without a search and writes it to where a search would write its shape.

    Args:
        workspace: The run.
        kind: Kind of baseline, one of `tas_tf.baselines.shapes.BASELINE_KINDS`.
        label: Name of the step for the user; by default, it names the kind.
    """

    section = "baseline"
    #: Whether the step tells what the shape costs beside it, for the check of files and the report.
    tells_cost = True

    def __init__(self, workspace: Workspace, kind: str, label: str | None = None) -> None:
        super().__init__(workspace, label or f"{kind} shape")
        self.shape_kind = kind

    @property
    def record(self) -> Step:
        """Record of the shape, which depends on the network, the budget and whatever else its kind uses.

        A random shape also depends on the seed and the tolerance, the best of several also on the data and the
        training. The kinds that choose filters depend on the teacher.

        Raises:
            UserError: The kind needs a teacher and there is none.
        """
        config = self.workspace.config
        inputs = {"model": config.model_file} if config.model_file else {}
        if self.shape_kind in RANKED_KINDS:
            inputs["teacher"] = self.workspace.require_teacher()
        return self._record(inputs, **network_settings(self.workspace))

    def _record(self, inputs: dict[str, Path], **more: Any) -> Step:
        return self.workspace.config.run.step(
            "search",
            settings=merged(self._settings(), more),
            inputs={**inputs, **budget_inputs(self.workspace), **self._data_inputs},
            outputs=self._outputs,
            version=VERSION,
        )

    @property
    def _data_inputs(self) -> dict[str, Path]:
        return data_inputs(self.workspace) if self._several else {}

    @property
    def trains(self) -> bool:
        """Whether several random shapes are trained briefly."""
        return self._several

    @property
    def _several(self) -> bool:
        return tries_shapes(self.shape_kind, self.workspace)

    def _settings(self) -> dict[str, Any]:
        workspace, config = self.workspace, self.workspace.config
        settings = {"space": recorded(config.space), **budget_settings(workspace), "kind": self.shape_kind}
        if self.shape_kind != "random":
            return settings
        search = {name: getattr(config.search, name) for name in ("seed", "tolerance")}
        if not self._several:
            return {**settings, "search": search}
        search |= {name: getattr(config.search, name) for name in ("split_share", "held_out_limit")}
        training = recorded(config.random_training, without=("epochs", "warmup_epochs", *DISTILLATION))
        return merged(
            settings_of(workspace, "data"),
            settings,
            {
                "search": search,
                "student": training,
                "baseline": recorded(config.baseline, without=["kind"]),
            },
        )

    @property
    def _outputs(self) -> list[Path]:
        """The shape, and where there are any, the network with the chosen filters and the metrics."""
        run = self.workspace.config.run
        return [
            run.search_shape,
            *([run.filtered_teacher] if self.shape_kind in RANKED_KINDS else []),
            *([run.metrics("search")] if self.tells_cost or self._several else []),
        ]

    def work(self, record: Step) -> None:
        """Makes a shape within the run's budget and writes it.

        Raises:
            UserError: There is no such shape or no teacher, or the run has a shape made from other settings.
        """
        workspace = self.workspace
        network = workspace.unpruned_network()
        space = workspace.space_of(network, anew=True)
        if workspace.config.budget.kind in MEASURED:
            workspace.check_deployable(network)
        cost, limit = workspace.cost_and_limit(space)
        self.make(record, cost, limit=limit, tolerance=int(workspace.config.search.tolerance * cost.full))

    def show(self) -> None:
        """Prints what the shape costs."""
        workspace, run = self.workspace, self.workspace.config.run
        space = workspace.space_of(workspace.unpruned_network(), anew=True)
        cost, limit = workspace.cost_and_limit(space)
        real = real_cost(cost, Shape.load(run.search_shape), workspace.meter(space))
        workspace.say(f"{run.search_shape}: {amount(cost.kind, real)}, budget {amount(cost.kind, limit)}.")

    def make(self, record: Step, cost: CostModel, *, limit: int, tolerance: int) -> None:
        """Makes the shape and writes it; if its kind chooses filters, also writes the network with those filters.

        Args:
            record: Record of the step.
            cost: The cost model.
            limit: Highest cost allowed.
            tolerance: How far below `limit` the cost of a random shape may be.

        Raises:
            UserError: See `work`.
        """
        workspace, config, kind = self.workspace, self.workspace.config, self.shape_kind
        meter = workspace.meter(cost.space)
        metrics: dict[str, Any] = {}
        if self._several:
            workspace.checked_space(workspace.unpruned_network())
            self.begin(record)
            shape, metrics = self._best_of_several(record, cost, limit, tolerance)
        else:
            shape, _ = affordable_baseline(
                kind,
                cost,
                limit=limit,
                tolerance=tolerance,
                meter=meter,
                divisor=config.space.width_divisor,
                seed=config.search.seed,
            )
            self.begin(record)
        if kind in RANKED_KINDS:
            teacher = workspace.load_teacher()
            ranked = reorder(teacher, cost.space, channel_order(kind, teacher, cost.space))
            write_model(config.run.filtered_teacher, inherited(ranked, cost.space, shape))
        write_json(config.run.search_shape, shape.to_json())
        if self.tells_cost:
            metrics |= budget_figures(cost, limit, real_cost(cost, shape, meter))
            metrics |= {} if meter is None else meter.figures()
        if metrics:
            write_json(config.run.metrics("search"), metrics)
        record.finish()

    def _best_of_several(
        self, record: Step, cost: CostModel, limit: int, tolerance: int
    ) -> tuple[Shape, dict[str, Any]]:
        workspace, config, tried = self.workspace, self.workspace.config, []
        objective = workspace.task.objective
        scored = f"held_out_{objective.metric}"

        def note(one: RandomShape) -> None:
            tried.append(
                {
                    cost.kind: reported(cost.kind, cost(one.shape)),
                    scored: one.score,
                    "seconds": one.seconds,
                }
            )
            workspace.say(
                f"{len(tried)} of {config.baseline.random_shapes}: {amount(cost.kind, cost(one.shape))}, "
                f"held-out {objective.told(one.score)}"
            )

        best = best_random_shape(
            cost,
            workspace.task,
            config.random_training,
            count=config.baseline.random_shapes,
            limit=limit,
            tolerance=tolerance,
            held_out_limit=config.search.held_out_limit,
            split_share=config.search.split_share,
            strategy=workspace.strategy,
            saving=workspace.saving(record),
            verbose=workspace.verbose,
            on_tried=note,
            meter=workspace.meter(cost.space),
        )
        seconds = round(sum(one["seconds"] for one in tried), 1)
        seed = config.random_training.seed
        return best.shape, {scored: best.score, "seconds": seconds, "seed": seed, "tried": tried}


class RivalShapeStep(BaselineStep):
    """Writes the shape of a rival that doesn't use the shape found by the search.

    Args:
        compared_with: The run whose student the rival is compared with.
        workspace: The rival's own run.
        kind: `full`, or the kind of a baseline.
        label: Name of the step for the user.
    """

    tells_cost = False

    def __init__(self, compared_with: Workspace, workspace: Workspace, kind: str, label: str | None = None) -> None:
        super().__init__(workspace, kind, label)
        self._compared_with = compared_with

    def effort(self, space: SearchSpace) -> Effort | None:
        """The brief trainings, if the best of several random shapes is chosen."""
        if not self._several:
            return None
        count, epochs = self.workspace.config.baseline.random_shapes, self.workspace.config.baseline.random_epochs
        iterations = count * brief_steps(self.workspace)
        return Effort(count * epochs, iterations, student_share(self._compared_with, space), float(count))

    def memory(self, space: SearchSpace) -> StepMemory | None:
        """That of a network of about the student's size."""
        shape = expected_shape(self._compared_with, space)
        return training_memory(self.workspace, space, shape, self.workspace.config.random_training, taught=False)

    def scheduled(self, schedule: Schedule) -> float:
        """Seconds for the brief trainings."""
        return schedule.random_seconds

    @property
    def record(self) -> Step:
        """Record of the shape, which depends on the teacher; a random shape also depends on the shape found.

        Raises:
            UserError: There is no teacher or no shape yet.
        """
        inputs = {"teacher": self._compared_with.require_teacher()}
        if self.shape_kind == "random":
            inputs["shape"] = self._compared_with.require_shape()
        return self._record(inputs)

    def work(self, record: Step) -> None:
        """Makes the shape and writes it.

        A random shape costs as much as the shape found. The others may use the whole budget, so that each rival is the
        best that can be had without a search.

        Raises:
            UserError: There is no such shape or no teacher, or the run has a shape made from other settings.
        """
        other = self._compared_with
        space = other.space_of(other.load_teacher())
        if self.shape_kind == "full":
            self.begin(record)
            write_json(self.workspace.config.run.search_shape, Shape.full(space).to_json())
            record.finish()
            return
        cost, limit = other.cost_and_limit(space)
        if self.shape_kind == "random":
            limit = real_cost(cost, other.load_shape(space), other.meter(space))
        self.make(record, cost, limit=limit, tolerance=limit // 50)


def tries_shapes(kind: str, workspace: Workspace) -> bool:
    """Whether a shape is the best of several random ones, each of which is trained briefly."""
    return kind == "random" and workspace.config.baseline.random_shapes > 1


def brief_steps(workspace: Workspace) -> int:
    """Steps of the brief training of each random shape."""
    config = workspace.config
    _, per_epoch = workspace.task.weights_part(config.search.split_share).training(config.student.batch_size)
    return config.baseline.random_epochs * per_epoch
