"""The steps that find a shape by searching: the search, and decoding its result at a further budget."""

from __future__ import annotations

from typing import Any

from tas_tf import workers
from tas_tf.cost.cost_model import MEASURED, told
from tas_tf.decode.decode import decode
from tas_tf.errors import UserError
from tas_tf.files import write_json, write_model
from tas_tf.pipeline.memory import search_memory
from tas_tf.pipeline.steps import (
    VERSION,
    Effort,
    RunStep,
    budget_inputs,
    budget_settings,
    data_inputs,
    merged,
    network_settings,
    settings_of,
)
from tas_tf.runs.records import read_result
from tas_tf.runs.run import Step
from tas_tf.runs.workspace import Workspace
from tas_tf.searching.logs import SearchSummaries
from tas_tf.searching.run import run_search
from tas_tf.settings import recorded, require
from tas_tf.space.probabilities import from_json, to_json
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.meter import budget_figures, find_within
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.memory import StepMemory

#: Time of a search iteration, in training steps of the unpruned network: measured on residual networks, see
#: benchmarks/search_step.py.
_SEARCH_ITERATION = 2.0
_BYTES_VERSION = VERSION + 1  # file sizes now include labels and other metadata


class SearchedShapeStep(RunStep):
    """A step that writes a shape found by a search."""

    section = "search"
    uses_budget = True

    @property
    def version(self) -> int:
        """Version of the result; higher for budgets in bytes, since file sizes used to be counted differently."""
        return _BYTES_VERSION if self.workspace.config.budget.kind == "bytes" else VERSION

    def measured(self, space: SearchSpace) -> dict[str, Any]:
        """What was measured to find the shape, for a budget in time."""
        meter = self.workspace.meter(space)
        return {} if meter is None else meter.figures()

    def show(self) -> None:
        """Prints the cost, the depths and the score of the shape, and any warnings."""
        if not workers.is_chief():
            return
        run = self.workspace.config.run
        metrics = read_result(run.metrics("search"))
        kind = metrics["budget_kind"]
        depths = "/".join(map(str, Shape.load(run.search_shape).depths.values())) or "none searched"
        objective = self.workspace.task.objective
        score = metrics.get(f"held_out_{objective.metric}")
        scored = "" if score is None else f", held-out {objective.told(score)}"
        measured = " predicted" if metrics.get("latency_predicted") else " measured" if kind in MEASURED else ""
        self.workspace.say(
            f"Found: {told(kind, metrics[f'shape_{kind}'])}{measured} ({metrics[f'shape_{kind}_ratio']:.3f} of the "
            f"whole; budget {told(kind, metrics[f'budget_{kind}'])}), depths {depths}{scored}."
        )
        for warning in metrics["warnings"]:
            self.workspace.say(f"warning: {warning}", section=self.section, style="yellow")


class SearchStep(SearchedShapeStep):
    """Searches widths and depths."""

    kind, trains = "search", True

    @property
    def record(self) -> Step:
        """Record of the search, which depends on the network's weights only if it starts from them."""
        workspace, config = self.workspace, self.workspace.config
        inputs = {**({"model": config.model_file} if config.model_file else {}), **budget_inputs(workspace)}
        if not config.teacher_run.teacher_model.exists():
            require(config.network, "model")
        if config.search.from_teacher or not config.network.model:
            inputs["teacher"] = workspace.require_teacher()
        return config.run.step(
            "search",
            settings=merged(
                settings_of(workspace, "data", "space", "search", *(["ranking"] if config.search.from_teacher else [])),
                budget_settings(workspace),  # the first budget drives the search
                network_settings(workspace),
            ),
            inputs={**inputs, **data_inputs(workspace)},
            outputs=[
                *(config.run.search_shape, config.run.probabilities, config.run.supernet_student),
                config.run.metrics("search"),
            ],
            version=self.version,
        )

    def effort(self, space: SearchSpace) -> Effort:
        """Epochs and iterations, each of which takes one batch from either part of the images."""
        return search_effort(self.workspace)

    def memory(self, space: SearchSpace) -> StepMemory:
        """That of the supernet."""
        return search_memory(self.workspace, space, self.workspace.config.search)

    def work(self, record: Step) -> None:
        """Searches, and writes the shape, the probabilities and the network of that shape.

        Raises:
            UserError: The network can't be exported, a budget can't be reached, the batch size doesn't fit, or training
                diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        # A search may run before the teacher is trained: it needs the network, not the trained weights.
        network = workspace.unpruned_network()
        space = workspace.space_of(network, anew=True)
        at_budgets = workspace.at_budgets()
        if any(one.config.budget.kind in MEASURED for one in at_budgets):
            workspace.check_deployable(network)  # before files are measured, which converts it as well
        for one in at_budgets:
            one.cost_and_limit(space)  # rejects an unreachable budget before anything is loaded or written
        workspace.checked_space(network, anew=True)
        workspace.task.searching(config.search.batch_size, config.search.split_share)
        self.begin(record)
        logs = config.run.logs("search")
        result = run_search(
            space,
            workspace.task,
            config.budget,
            config.search,
            strategy=workspace.strategy,
            teacher=workspace.ranked(network, space) if config.search.from_teacher else None,
            callbacks=lambda monitor: workspace.callbacks("search", SearchSummaries(logs, monitor)),
            saving=workspace.saving(record),
            verbose=workspace.verbose,
            meter=workspace.meter(space),
        )
        write_json(config.run.probabilities, to_json(space, *result.probabilities))
        write_json(config.run.search_shape, result.shape.to_json())
        student = build_student(space, result.shape)
        inherit_from_supernet(student, result.supernet, space, result.shape)
        write_model(config.run.supernet_student, student)
        write_json(
            config.run.metrics("search"),
            {
                **result.metrics,
                **self.measured(space),
                "warnings": list(result.warnings),
                "history": result.history,
            },
        )
        record.finish()
        self.show()


class DecodeStep(SearchedShapeStep):
    """Decodes a shape at a further budget from the probabilities that another run's search found.

    Args:
        workspace: The run of the further budget.
        searched: The run that holds the search.
        label: Name of the step for the user.
    """

    kind = "shape"

    def __init__(self, workspace: Workspace, searched: Workspace, label: str | None = None) -> None:
        super().__init__(workspace, label)
        self._searched = searched

    @property
    def record(self) -> Step:
        """Record of the shape, which depends on the probabilities that the search found.

        Raises:
            UserError: The search hasn't run yet.
        """
        workspace, config = self.workspace, self.workspace.config
        probabilities = self._searched.config.run.probabilities
        if not probabilities.exists():
            raise UserError(
                f"`budgets`: decoding {config.budget} needs {probabilities}, which doesn't exist. Run `search` first."
            )
        return config.run.step(
            "search",
            settings={
                "space": recorded(config.space),
                "search": {"tolerance": config.search.tolerance},
                **budget_settings(workspace),
            },
            inputs={"probabilities": probabilities, **budget_inputs(workspace)},
            outputs=[config.run.search_shape, config.run.metrics("search")],
            version=self.version,
        )

    def work(self, record: Step) -> None:
        """Decodes the shape and writes it.

        Raises:
            UserError: The budget can't be reached.
        """
        workspace, config = self.workspace, self.workspace.config
        space = workspace.space_of(workspace.unpruned_network())
        cost, limit = workspace.cost_and_limit(space)
        widths, depths = from_json(space, read_result(self._searched.config.run.probabilities))
        tolerance = int(config.search.tolerance * cost.full)

        def find(allowed: int) -> Shape:
            return decode(cost, widths, depths, limit=allowed, tolerance=tolerance)

        shape, spent = find_within(find, cost, limit, workspace.meter(space))
        self.begin(record)
        write_json(config.run.search_shape, shape.to_json())
        metrics = {**budget_figures(cost, limit, spent), **self.measured(space), "warnings": []}
        write_json(config.run.metrics("search"), metrics)
        record.finish()
        self.show()


def search_effort(workspace: Workspace) -> Effort:
    """Epochs and iterations of a search, each of which takes one batch from either part of the images."""
    settings = workspace.config.search
    _, per_epoch = workspace.task.searching(settings.batch_size, settings.split_share)
    return Effort(settings.all_epochs, settings.all_epochs * per_epoch, _SEARCH_ITERATION)
