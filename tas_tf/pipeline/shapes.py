"""The steps that find a shape: the search, decoding at a further budget, and shapes without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tas_tf.baselines.random_shapes import RandomShape, best_random_shape
from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json, write_model
from tas_tf.pipeline.steps import VERSION, Effort, RunStep, budget_settings, network_settings, settings_of
from tas_tf.runs.run import Step
from tas_tf.runs.workspace import Workspace
from tas_tf.searching.logs import SearchSummaries
from tas_tf.searching.run import run_search
from tas_tf.settings import recorded, require
from tas_tf.space.probabilities import from_json, to_json
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.file_size import find_within, real_cost
from tas_tf.student.filters import CRITERIA, kept_filters
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.network import inherited

#: Steps of the unpruned network that an iteration takes: measured on residual networks, see benchmarks/search_step.py.
_SEARCH_ITERATION = 2.0
_BYTES_VERSION = VERSION + 1  # files carry labels and more


class ShapeStep(RunStep):
    """A step that leaves a shape."""

    section = "search"

    @property
    def version(self) -> int:
        """Of the result: what a file weighs was counted otherwise once."""
        return _BYTES_VERSION if self.workspace.config.budget.kind == "bytes" else VERSION

    def show(self) -> None:
        """Tells what was found."""
        run = self.workspace.config.run
        metrics = read_json(run.metrics("search"))
        kind = metrics["budget_kind"]
        depths = "/".join(map(str, Shape.load(run.search_shape).depths.values())) or "none searched"
        accuracy = metrics.get("held_out_accuracy")
        scored = "" if accuracy is None else f", held-out accuracy {accuracy:.3f}"
        self.workspace.say(
            f"Found: {metrics[f'shape_{kind}']:,} {kind} ({metrics[f'shape_{kind}_ratio']:.3f} of the whole; budget "
            f"{metrics[f'budget_{kind}']:,}), depths {depths}{scored}."
        )
        for warning in metrics["warnings"]:
            self.workspace.say(f"warning: {warning}", section=self.section, style="yellow")


class SearchStep(ShapeStep):
    """Searches widths and depths."""

    kind = "search"

    @property
    def record(self) -> Step:
        """The search depends on the network, and on its weights only where it starts from them."""
        workspace, config = self.workspace, self.workspace.config
        inputs = {"model": config.model_file} if config.model_file else {}
        if not config.teacher_run.teacher_model.exists():
            require(config.network, "model")
        if config.search.from_teacher or not config.network.model:
            inputs["teacher"] = workspace.require_teacher()
        return config.run.step(
            "search",
            settings=merged(
                settings_of(workspace, "data", "space", "search"),
                budget_settings(workspace),  # of several the first drives the search
                network_settings(workspace),
            ),
            inputs=inputs,
            outputs=[
                *(config.run.search_shape, config.run.probabilities, config.run.supernet_student),
                config.run.metrics("search"),
            ],
            version=self.version,
        )

    def effort(self, space: SearchSpace) -> Effort:
        """Iterations over two halves of the images."""
        settings = self.workspace.config.search
        _, per_epoch = self.workspace.task.searching(settings.batch_size, settings.split_share)
        return Effort(settings.all_epochs, per_epoch, _SEARCH_ITERATION)

    def work(self, record: Step) -> None:
        """Searches, and writes the shape, its probabilities and its network.

        Raises:
            UserError: A budget can't be reached, the batch doesn't fit, or training diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        # A search needs the network, not its trained weights: it may run before the teacher.
        network = workspace.unpruned_network()
        space = workspace.space_of(network, anew=True)
        for one in workspace.at_budgets():
            one.prepare(space)  # an unreachable budget is refused before anything is loaded or written
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
            teacher=network if config.search.from_teacher else None,
            callbacks=lambda monitor: [*workspace.callbacks("search"), SearchSummaries(logs, monitor)],
            checkpoint_dir=record.checkpoints,
            verbose=workspace.verbose,
            file_size=workspace.file_size(space),
        )
        write_json(config.run.probabilities, to_json(space, *result.probabilities))
        write_json(config.run.search_shape, result.shape.to_json())
        student = build_student(space, result.shape)
        inherit_from_supernet(student, result.supernet, space, result.shape)
        write_model(config.run.supernet_student, student)
        write_json(
            config.run.metrics("search"),
            {**result.metrics, "warnings": list(result.warnings), "history": result.history},
        )
        record.finish()
        self.show()


class DecodeStep(ShapeStep):
    """Decodes a shape at a further budget from what the search of another run left.

    Args:
        workspace: The run of the further budget.
        searched: The run that was searched.
        label: What the user sees.
    """

    kind = "shape"

    def __init__(self, workspace: Workspace, searched: Workspace, label: str | None = None) -> None:
        super().__init__(workspace, label)
        self._searched = searched

    @property
    def record(self) -> Step:
        """The shape depends on what the search left.

        Raises:
            UserError: There was no search yet.
        """
        workspace, config = self.workspace, self.workspace.config
        probabilities = self._searched.config.run.probabilities
        if not probabilities.exists():
            raise UserError(
                f"`budgets`: there is no {probabilities}, from which to decode {config.budget}. Run `search` first."
            )
        return config.run.step(
            "search",
            settings={
                "space": recorded(config.space),
                "search": {"tolerance": config.search.tolerance},
                **budget_settings(workspace),
            },
            inputs={"probabilities": probabilities},
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
        cost, limit = workspace.prepare(space)
        widths, depths = from_json(space, read_json(self._searched.config.run.probabilities))
        tolerance = int(config.search.tolerance * cost.full)

        def find(allowed: int) -> Shape:
            return decode(cost, widths, depths, limit=allowed, tolerance=tolerance)

        shape, spent = find_within(find, cost, limit, workspace.file_size(space))
        self.begin(record)
        write_json(config.run.search_shape, shape.to_json())
        kind = cost.kind
        figures = {"budget_kind": kind, f"budget_{kind}": limit, f"shape_{kind}": spent}
        write_json(config.run.metrics("search"), {**figures, f"shape_{kind}_ratio": spent / cost.full, "warnings": []})
        record.finish()
        self.show()


class BaselineStep(ShapeStep):
    """Writes a shape without a search, in the place of one that was searched.

    Args:
        workspace: The run.
        kind: Of the baseline, one of `tas_tf.baselines.shapes.BASELINE_KINDS`.
    """

    section = "baseline"

    def __init__(self, workspace: Workspace, kind: str) -> None:
        super().__init__(workspace, f"{kind} shape")
        self.shape_kind = kind

    @property
    def record(self) -> Step:
        """The shape depends on network and budget, and on what its kind reads besides.

        A random shape depends on seed and tolerance as well, the best of several on data and training, chosen filters
        on the teacher.

        Raises:
            UserError: The kind needs a teacher and there is none.
        """
        config = self.workspace.config
        inputs = {"model": config.model_file} if config.model_file else {}
        if self.shape_kind in CRITERIA:
            inputs["teacher"] = self.workspace.require_teacher()
        return self._record(inputs, **network_settings(self.workspace))

    def _record(self, inputs: dict[str, Path], **more: Any) -> Step:
        return self.workspace.config.run.step(
            "search",
            settings=merged(self._settings(), more),
            inputs=inputs,
            outputs=self._outputs,
            version=VERSION,
        )

    @property
    def _several(self) -> bool:
        return self.shape_kind == "random" and self.workspace.config.baseline.random_shapes > 1

    def _settings(self) -> dict[str, Any]:
        workspace, config = self.workspace, self.workspace.config
        settings = {"space": recorded(config.space), **budget_settings(workspace), "kind": self.shape_kind}
        if self.shape_kind != "random":
            return settings
        search = {name: getattr(config.search, name) for name in ("seed", "tolerance")}
        if not self._several:
            return {**settings, "search": search}
        search |= {name: getattr(config.search, name) for name in ("split_share", "held_out_limit")}
        training = recorded(config.random_training, without=("epochs", "warmup_epochs", "alpha", "temperature"))
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
        """A shape; the network whose filters were chosen; how the best of several was found."""
        run = self.workspace.config.run
        if self.shape_kind in CRITERIA:
            return [run.search_shape, run.filtered_teacher]
        return [run.search_shape, run.metrics("search")] if self._several else [run.search_shape]

    def work(self, record: Step) -> None:
        """Makes the shape of the run's budget and writes it.

        Raises:
            UserError: There is no such shape, no teacher, or a shape from other settings in the run.
        """
        workspace = self.workspace
        space = workspace.space_of(workspace.unpruned_network(), anew=True)
        cost, limit = workspace.prepare(space)
        self.make(record, cost, limit=limit, tolerance=int(workspace.config.search.tolerance * cost.full))

    def show(self) -> None:
        """Tells what the shape costs."""
        workspace, run = self.workspace, self.workspace.config.run
        space = workspace.space_of(workspace.unpruned_network(), anew=True)
        cost, limit = workspace.prepare(space)
        real = real_cost(cost, Shape.load(run.search_shape), workspace.file_size(space))
        workspace.say(f"{run.search_shape}: {real:,} {cost.kind}, budget {limit:,}.")

    def make(self, record: Step, cost: CostModel, *, limit: int, tolerance: int) -> None:
        """Makes the shape and writes it, and where filters are chosen the network that keeps them.

        Args:
            record: Of the step.
            cost: What counts.
            limit: The most that it may cost.
            tolerance: How far below it a random shape may be.

        Raises:
            UserError: See `work`.
        """
        workspace, config, kind = self.workspace, self.workspace.config, self.shape_kind
        if self._several:
            workspace.checked_space(workspace.unpruned_network())
            self.begin(record)
            shape = self._best_of_several(record, cost, limit, tolerance)
        else:

            def find(allowed: int) -> Shape:
                return baseline_shape(
                    kind,
                    cost,
                    limit=allowed,
                    tolerance=tolerance,
                    divisor=config.space.width_divisor,
                    seed=config.search.seed,
                )

            shape, _ = find_within(find, cost, limit, workspace.file_size(cost.space))
            self.begin(record)
        if kind in CRITERIA:
            teacher = workspace.load_teacher()
            filters = kept_filters(kind, teacher, cost.space, shape)
            write_model(config.run.filtered_teacher, inherited(teacher, cost.space, shape, filters=filters))
        write_json(config.run.search_shape, shape.to_json())
        record.finish()

    def _best_of_several(self, record: Step, cost: CostModel, limit: int, tolerance: int) -> Shape:
        workspace, config, tried = self.workspace, self.workspace.config, []

        def note(one: RandomShape) -> None:
            tried.append({cost.kind: cost(one.shape), "held_out_accuracy": one.accuracy, "seconds": one.seconds})
            workspace.say(
                f"{len(tried)} of {config.baseline.random_shapes}: {cost(one.shape):,} {cost.kind}, "
                f"held-out accuracy {one.accuracy:.4f}"
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
            checkpoint_dir=record.checkpoints,
            verbose=workspace.verbose,
            on_tried=note,
            file_size=workspace.file_size(cost.space),
        )
        seconds = round(sum(one["seconds"] for one in tried), 1)
        seed = config.random_training.seed
        metrics = {"held_out_accuracy": best.accuracy, "seconds": seconds, "seed": seed, "tried": tried}
        write_json(config.run.metrics("search"), metrics)
        return best.shape


class RivalShapeStep(BaselineStep):
    """Writes the shape of a rival that isn't the one found.

    Args:
        session: The run whose student it is compared with.
        workspace: The rival's own.
        kind: `full`, or the kind of a baseline.
    """

    def __init__(self, session: Workspace, workspace: Workspace, kind: str) -> None:
        super().__init__(workspace, kind)
        self._compared_with = session

    @property
    def record(self) -> Step:
        """The shape depends on the teacher; a random one on what the shape found costs.

        Raises:
            UserError: There is no teacher or no shape yet.
        """
        inputs = {"teacher": self._compared_with.require_teacher()}
        if self.shape_kind == "random":
            inputs["shape"] = self._compared_with.require_shape()
        return self._record(inputs)

    def work(self, record: Step) -> None:
        """Makes the shape and writes it.

        A random one costs what the searched one costs. The others get the whole budget: it is the best that can be had
        without a search.

        Raises:
            UserError: There is no such shape, no teacher, or a shape from other settings in the run.
        """
        other = self._compared_with
        space = other.space_of(other.load_teacher())
        if self.shape_kind == "full":
            self.begin(record)
            write_json(self.workspace.config.run.search_shape, Shape.full(space).to_json())
            record.finish()
            return
        cost, limit = other.prepare(space)
        if self.shape_kind == "random":
            limit = real_cost(cost, other.load_shape(space), other.file_size(space))
        self.make(record, cost, limit=limit, tolerance=limit // 50)


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Settings of several descriptions, their sections joined."""
    result: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = {**result[name], **value} if both else value
    return result
