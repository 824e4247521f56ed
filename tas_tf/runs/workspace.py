"""Everything that the steps of a run use: search spaces, costs and shapes, beside data and networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.own_data import taken_as_it_is
from tas_tf.data.settings import script_file
from tas_tf.data.task import Task
from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.file_contents import layers_inside, measure_file
from tas_tf.errors import UserError
from tas_tf.graph.custom import make_known
from tas_tf.graph.graph import Graph
from tas_tf.importance.order import rank
from tas_tf.latency.meter import meter_of
from tas_tf.runs.config import RunConfig
from tas_tf.runs.found_preprocessing import find_preprocessing, kept_preparation, ways_to_try
from tas_tf.runs.networks import RunNetworks
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import load_schedule, save_schedule
from tas_tf.runs.shared import Shared
from tas_tf.searching.run import cost_and_limit
from tas_tf.settings import require
from tas_tf.space.settings import SpaceSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import Meter, OnChief
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import check_fits
from tas_tf.training.seeding import seed_everything
from tas_tf.training.strategy import check_batch_size

#: What can be found out about a trained network, and what a network to be trained gets.
_FOUND = {"resize": "squash", "preprocess": "standardise"}


@dataclass(frozen=True, eq=False)
class Workspace(RunNetworks):
    """One run and everything that its steps need.

    Attributes:
        keeps_fresh: Whether `overwrite` replaces only results made from other settings, instead of all results.
    """

    keeps_fresh: bool = False

    @classmethod
    def open(
        cls,
        config: RunConfig,
        shared: Shared | None = None,
        *,
        keeps_fresh: bool = False,
        prepared: bool = True,
    ) -> Workspace:
        """Makes the workspace of a run, and sets precision and seeds for the whole process.

        Args:
            config: Settings of the run.
            shared: What the run shares with others; by default a console alone.
            keeps_fresh: See the class.
            prepared: Whether to call `prepared`, which may load the data.

        Raises:
            UserError: `run_dir` isn't set, or an argument doesn't fit the budgets or the devices.
        """
        require(config, "run_dir")
        config.check_budgets()
        keras.mixed_precision.set_global_policy(config.precision)
        seed_everything(config.search.seed, deterministic=config.deterministic)
        make_known(config.network.custom_objects)
        workspace = cls(config, shared or Shared(Console()), keeps_fresh).sized()
        workspace = workspace.prepared() if prepared else workspace
        if config.search.jit_compile and workspace.strategy.num_replicas_in_sync > 1:
            raise UserError("`jit_compile` works on one device. Expected `strategy`=one_device with it.")
        return workspace

    def prepared(self) -> Workspace:
        """This workspace with the resizing and the preprocessing that the network needs, if they weren't given.

        Raises:
            UserError: Two kinds of preprocessing suit a trained network nearly as well, or none does.
        """
        config = self.config
        if (file := script_file(config.data.dataset)) is not None:
            return replace(self, config=replace(config, data=taken_as_it_is(config.data, file)))
        missing: dict[str, Any] = {
            name: default for name, default in _FOUND.items() if getattr(config.data, name) == "auto"
        }
        if not missing:
            return self
        known, model = {} if self.replaces_teacher else kept_preparation(config.teacher_run), None
        prepared_elsewhere = known.get("preprocess", "") is None
        if prepared_elsewhere:
            del known["preprocess"]
        if config.takes_over and "preprocess" not in known:
            tasks, kinds = ways_to_try(config.data, self.task, lambda: self.load_task(streamed=True))
            if len(tasks) > 1 or len(kinds) > 1:
                model = self.make_network()
                space = self.space_of(model, anew=True)

                def find() -> tuple[dict[str, str], list[str]]:
                    found = find_preprocessing(model, space, tasks, kinds)
                    return {"resize": found.resize, "preprocess": found.kind}, found.lines(str(config.model_file))

                known, lines = workers.once(find)
                for line in lines:
                    self.say(line)
        elif prepared_elsewhere and "preprocess" in missing:
            raise UserError(
                f"`dataset`: {config.data.dataset} isn't what the teacher in {config.teacher_run.path} was trained on. "
                "A Python file made its data: give that one, or the `preprocess` that the teacher needs here."
            )
        data = replace(config.data, **{name: known.get(name, default) for name, default in missing.items()})
        loaded = self.shared.tasks.pop(config.data, None)
        if isinstance(loaded, Task) and loaded.source.resize == data.resize:
            self.shared.tasks[data] = loaded.prepared_as(data.preprocess)
        if model is not None:
            self.shared.in_order.add((config.network, data))
            self.shared.networks[config.network, data, config.precision] = model
        return replace(self, config=replace(config, data=data))

    def rival(self, name: str) -> Workspace:
        """The workspace of a rival's run, see `RunConfig.rival`."""
        return replace(self, config=self.config.rival(name))

    def at_budgets(self) -> tuple[Workspace, ...]:
        """This workspace, and one for each further budget, see `RunConfig.at_budgets`."""
        return (self, *(replace(self, config=config) for config in self.config.at_budgets()[1:]))

    @property
    def outermost(self) -> Workspace:
        """The workspace of the outermost run, whose folder holds this one."""
        return replace(self, config=self.config.outermost)

    def unpruned_network(self) -> keras.Model:
        """The teacher if there is one, otherwise the network that `model` names.

        Raises:
            UserError: The teacher and `model` are different networks.
        """
        config = self.config.outermost
        if not config.teacher_from and not config.teacher_run.teacher_model.exists():
            return self.network
        teacher = self.outermost.load_teacher()
        if config.network.model:
            named, found = (Graph.from_model(model) for model in (self.network, teacher))
            if named.digest != found.digest:
                raise UserError(
                    f"`model`: {config.network.model} isn't the network of the teacher in "
                    f"{config.teacher_run.path}, which is called `{found.network}`. Give the teacher's network, or "
                    "another `run_dir`."
                )
        return teacher

    def ranked(self, model: keras.Model, space: SearchSpace) -> keras.Model:
        """The network with its channels in order of importance, as the run's settings say; it computes the same.

        Args:
            model: The trained network.
            space: Search space of the network.

        Raises:
            UserError: The network lacks what the criterion needs.
        """
        ranking = self.config.ranking
        return rank(
            model,
            space,
            ranking,
            lambda batch_size, batches: self.task.calibration(batch_size, batches),  # loads the data only if needed
            self.task.objective if ranking.importance == "taylor" else None,
        )

    def space_of(self, model: keras.Model, *, anew: bool = False) -> SearchSpace:
        """The search space of a network.

        Args:
            model: The network.
            anew: Whether a new shape will be found, so that the units of an existing one don't count.
        """
        config = self.config
        shape = Shape.load(self.require_shape()) if config.shape else None
        if shape is None and not anew:
            runs = [one for one in (config, config.parent) if one is not None]
            found = [one.shape_path for one in runs if one.shape_path.exists()]
            shape = Shape.load(found[0]) if found else None
        return space_of(Graph.from_model(model), config.space, shape)

    def checked_space(self, model: keras.Model, *, anew: bool = False, trains: bool = True) -> SearchSpace:
        """Like `space_of`, but also checks the network's data and export, and the batch size.

        Args:
            model: The network.
            anew: See `space_of`.
            trains: Whether a training follows, whose batch size has to fit the data.

        Raises:
            UserError: The data or the batch size doesn't fit, or the network can't be exported.
        """
        space = self.space_of(model, anew=anew)
        check_fits(model, space, self.task)
        if trains:
            check_batch_size(self.strategy, self.config.student.batch_size, self.config.student.accumulate)
            self.task.training(self.config.student.batch_size)
        self.check_deployable(model)  # last: it takes seconds
        return space

    @workers.on_chief
    def check_deployable(self, model: keras.Model) -> None:
        """Checks that a network can be exported as the run's settings say; converts each network only once.

        Raises:
            UserError: The network can't be exported.
        """
        export, passed = self.config.export, self.shared.deployable
        tflite = set(export.formats) != {"saved_model"}
        key = (
            Graph.from_model(model).digest,
            self.config.data,
            self.config.precision,
            export.preprocessing_inside,
            tflite,
        )
        if key not in passed:
            inside = layers_inside(self.task) if export.preprocessing_inside else []
            check_deployable(model, preprocessing_layers=inside, tflite=tflite)
            passed.add(key)

    def cost_and_limit(self, space: SearchSpace) -> tuple[CostModel, int]:
        """The cost model and the highest cost for the run's budget, see `tas_tf.searching.run.cost_and_limit`."""
        return cost_and_limit(space, self.config.budget, self.meter(space))

    def meter(self, space: SearchSpace) -> Meter | None:
        """Returns what measures shapes for the run's budget; it measures each shape only once."""
        config, meters = self.config, self.shared.meters
        kind, inside = config.budget.kind, config.export.preprocessing_inside
        names = tuple(node.name for node in space.graph)
        choices = tuple((choice.name, choice.candidates) for choice in space.choices)
        key = (kind, config.data, config.latency, inside, space.graph.digest, names, choices)
        if key not in meters:
            meters[key] = meter_of(
                kind,
                space,
                config.latency,
                measure_file=lambda student: measure_file(student, space, self.task, inside=inside),
                preprocessing=lambda: layers_inside(self.task, inside=inside),
                say=self.say,
            )
        meter = meters[key]
        return meter if meter is None or workers.count() == 1 else OnChief(meter)

    def proposing(self, space: SearchSpace) -> dict[str, Any]:
        """Arguments of a `Proposer` that come from the run's settings."""
        config = self.config
        return {
            "divisor": config.space.width_divisor,
            "meter": self.meter(space),
            "seed": config.student.seed,
        }

    def require_shape(self) -> Path:
        """Path of the shape to build.

        Raises:
            UserError: There is no shape yet.
        """
        path = self.config.shape_path
        if not path.exists():
            raise UserError(f"`shape`: there is no {path}. Run `search` first, or give `shape`.")
        return path

    def load_shape(self, space: SearchSpace) -> Shape:
        """Loads and checks the shape to build.

        Raises:
            UserError: There is no shape yet, or it belongs to another network.
        """
        shape = Shape.load(self.require_shape())
        shape.check(space)
        return shape

    def callbacks(self, step: str, *more: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
        """Callbacks that every training uses: they write TensorBoard logs and keep account of the time.

        Args:
            step: Name of the step.
            *more: Further ones that write.

        Returns:
            All of them on the chief, none on other workers.
        """
        if not workers.is_chief():
            return []
        keeps_time = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.note_time())
        return [TensorBoardScalars(self.config.run.logs(step)), keeps_time, *more]

    def saving(self, record: Step) -> Saving:
        """Where and how often the training of a step is saved."""
        return Saving(record.checkpoints, self.config.checkpoint_minutes, self.note_time)

    def note_time(self) -> None:
        """Adds the time since the last call to what the run has used, if the user gave it a time."""
        if (schedule := load_schedule(self.config)) is not None:
            save_schedule(self.config, replace(schedule, used=schedule.used + self.shared.lap()))

    def rival_students(self, names: Sequence[str] | None = None) -> dict[str, Path]:
        """Paths of the rivals' students, by name: of the rivals named, by default of all that have been trained."""
        names = self.config.trained_rivals if names is None else names
        return {name: self.config.rival(name).run.student_model for name in names}

    def keep_settings(self, record: Step) -> None:
        """Keeps the settings of the run beside its results.

        The command of a single step is often given few arguments, so arguments given to earlier steps stay.

        Args:
            record: Record of the step. Its settings are kept with their current values, whether given or not.
        """
        self.config.run.prepare()
        self.shared.keep_settings(self, tuple(record.setting_names))
        self.list_left_out()


def space_of(graph: Graph, settings: SpaceSettings, shape: Shape | None = None) -> SearchSpace:
    """The search space of a network under given settings.

    Args:
        graph: The network.
        settings: Which parts may change.
        shape: Shape whose units tell whether the trunk is coupled if `couple_trunk` isn't given.
    """
    return SearchSpace.from_graph(
        graph,
        couple_trunk=settings.couple_trunk,
        units=None if shape is None else shape.widths,
        axes=settings.axes,
        width_divisor=settings.width_divisor,
        search_dense=settings.search_dense,
    )
