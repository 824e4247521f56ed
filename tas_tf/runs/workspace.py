"""The data, networks, devices and search spaces that the steps of a run use, each made on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.markup import escape

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.file_contents import layers_inside, measure_file
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.graph.custom import make_known
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import takes_any_size, with_image_size
from tas_tf.importance.order import rank
from tas_tf.latency.meter import meter_of
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.objective import Objective
from tas_tf.runs.config import RunConfig
from tas_tf.runs.found_preprocessing import find_preprocessing, kept_preparation, ways_to_try
from tas_tf.runs.run import Step
from tas_tf.runs.schedule import load_schedule, save_schedule
from tas_tf.runs.shared import Shared
from tas_tf.searching.run import cost_and_limit
from tas_tf.settings import require
from tas_tf.space.settings import SpaceSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import Meter
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.network import check_fits
from tas_tf.training.seeding import seed_everything
from tas_tf.training.strategy import check_batch_size, make_strategy
from tas_tf.zoo.loading import in_precision, load_file, load_network, loss_in_file

#: What can be found out about a trained network, and what a network to be trained gets.
_FOUND = {"resize": "squash", "preprocess": "standardise"}
_VERBOSE = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}


@dataclass(frozen=True, eq=False)
class Workspace:
    """One run and everything that its steps need.

    Attributes:
        config: Settings of the run.
        shared: What the run shares with the runs inside its folder.
        keeps_fresh: Whether `overwrite` replaces only results made from other settings, instead of all results.
    """

    config: RunConfig
    shared: Shared
    keeps_fresh: bool = False

    @classmethod
    def open(
        cls,
        config: RunConfig,
        shared: Shared | None = None,
        *,
        keeps_fresh: bool = False,
    ) -> Workspace:
        """Makes the workspace of a run, and sets precision and seeds for the whole process.

        Args:
            config: Settings of the run.
            shared: What the run shares with others; by default a console alone.
            keeps_fresh: See the class.

        Raises:
            UserError: `run_dir` isn't set, or an argument doesn't fit the budgets or the devices.
        """
        require(config, "run_dir")
        config.check_budgets()
        keras.mixed_precision.set_global_policy(config.precision)
        seed_everything(config.search.seed, deterministic=config.deterministic)
        make_known(config.network.custom_objects)
        workspace = cls(config, shared or Shared(Console()), keeps_fresh)._prepared()
        if config.search.jit_compile and workspace.strategy.num_replicas_in_sync > 1:
            raise UserError("`jit_compile` works on one device. Expected `strategy`=one_device with it.")
        return workspace

    def _prepared(self) -> Workspace:
        """This workspace with the resizing and the preprocessing that the network needs, if they weren't given.

        Raises:
            UserError: Two kinds of preprocessing suit a trained network nearly as well, or none does.
        """
        config = self.config
        missing = {name: default for name, default in _FOUND.items() if getattr(config.data, name) == "auto"}
        if not missing:
            return self
        known, model = {} if self._replaces_teacher else kept_preparation(config.teacher_run), None
        if config.model_file and "preprocess" not in known:
            tasks, kinds = ways_to_try(config.data, self.task, lambda: self._load_task(streamed=True))
            if len(tasks) > 1 or len(kinds) > 1:
                model = self._make_network()
                found = find_preprocessing(model, self.space_of(model, anew=True), tasks, kinds)
                known = {"resize": found.resize, "preprocess": found.kind}
                for line in found.lines(str(config.model_file)):
                    self.say(line)
        data = replace(config.data, **{name: known.get(name, default) for name, default in missing.items()})
        loaded = self.shared.tasks.pop(config.data, None)
        if loaded is not None and loaded.source.resize == data.resize:
            self.shared.tasks[data] = loaded.prepared_as(data.preprocess)
        if model is not None:
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

    def say(self, text: str, *, section: str | None = None, **style: Any) -> None:
        """Prints a line for the user.

        Args:
            text: The line, with arguments in backticks.
            section: Section of the config that the arguments belong to, if several have one of that name.
            **style: Options of `rich.console.Console.print`.
        """
        self.shared.console.print(self.shared.wording(text, section), highlight=False, soft_wrap=True, **style)

    @property
    def verbose(self) -> int | str:
        """The `verbose` argument for Keras."""
        return _VERBOSE[self.config.progress]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy for the run's devices."""
        return make_strategy(self.config.strategy)

    @property
    def task(self) -> Task:
        """The data of the run."""
        data, tasks = self.config.data, self.shared.tasks
        if data not in tasks:
            tasks[data] = self._load_task()
            for note in tasks[data].source.notes:
                if note not in self.shared.said:
                    self.say(escape(note))  # paths may have brackets
                    self.shared.said.add(note)
        return tasks[data]

    def _load_task(self, *, streamed: bool = False) -> Task:
        data = self.config.data
        task = Task.load(**{field.name: getattr(data, field.name) for field in fields(data)}, streamed=streamed)
        objective = self._objective(task.source.image_shape)
        return task if objective is None else task.for_objective(objective)

    def _objective(self, image_shape: Sequence[int]) -> Objective | None:
        """What the network in the user's file or the run's teacher is for; `None` if it is a built-in one."""
        config = self.config
        metrics, task, loss = config.teacher_run.metrics("teacher"), config.network.task, None
        if metrics.exists() and not self._replaces_teacher:
            # A teacher has been taken over without its loss; those of earlier versions classify.
            task = task or read_json(metrics).get("task", Classification.task)
            if task == Classification.task:
                return None
            model = self.load_teacher()
        elif config.model_file:
            model = self._loaded_file()
            loss = None if task else loss_in_file(config.model_file)
        elif task in (None, Classification.task):
            return None
        else:
            raise UserError(f"`task`={task} needs a `model` of your own. Built-in networks classify.")
        return choose_objective(Graph.from_model(with_image_size(model, image_shape)), task=task, loss=loss)

    @property
    def _replaces_teacher(self) -> bool:
        """Whether the user's file may take the place of the run's teacher."""
        config = self.config
        return config.overwrite and config.model_file is not None and not config.teacher_from

    @property
    def network(self) -> keras.Model:
        """The network that `model` names, built for the run's data; a network from a file keeps its weights.

        It is built only once, because Keras numbers unnamed layers differently each time and shapes refer to layers by
        name.
        """
        config, networks = self.config, self.shared.networks
        key = (config.network, config.data, config.precision)
        if key not in networks:
            networks[key] = self._make_network()
        return networks[key]

    def _make_network(self) -> keras.Model:
        config = self.config
        name = require(config.network, "model")
        if config.model_file:
            model = self._loaded_file()
            if takes_any_size(model):
                model = with_image_size(model, self.task.source.image_shape)
            return in_precision(model, config.precision)
        *size, channels = self.task.source.image_shape
        return load_network(
            name,
            num_classes=config.network.num_classes or self.task.source.num_classes,
            image_size=tuple(size),
            channels=channels,
        )

    def _loaded_file(self) -> keras.Model:
        """The network in the user's file, which is read only once: old files are converted, which takes time."""
        path, loaded = self.config.model_file, self.shared.loaded
        if path not in loaded:
            options = {"unsafe_load": self.config.network.unsafe_load, "say": self.say}
            loaded[path] = load_network(str(path), **options)
        return loaded[path]

    def load(self, path: Path) -> keras.Model:
        """Loads a network from a file, with Lambda layers if the user accepts their code.

        Raises:
            UserError: The file can't be loaded.
        """
        return load_file(path, unsafe_load=self.config.network.unsafe_load, say=self.say)

    def free_memory(self) -> None:
        """Frees the memory that Keras holds after a step, and sets the precision again, which this resets."""
        keras.backend.clear_session()
        keras.mixed_precision.set_global_policy(self.config.precision)

    def require_teacher(self) -> Path:
        """Path of the run's teacher.

        Raises:
            UserError: There is no teacher yet.
        """
        path = self.config.teacher_run.teacher_model
        if not path.exists():
            argument = "teacher_from" if self.config.teacher_from else "run_dir"
            raise UserError(f"`{argument}`: there is no teacher, {path}. Run `teacher` first.")
        return path

    def load_teacher(self) -> keras.Model:
        """Loads the teacher of the run.

        Raises:
            UserError: There is no teacher yet.
        """
        return in_precision(self.load(self.require_teacher()), self.config.precision)

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
            check_batch_size(self.strategy, self.config.student.batch_size)
            self.task.training(self.config.student.batch_size)
        self.check_deployable(model)  # last: it takes seconds
        return space

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
            inside = layers_inside(self.task, inside=export.preprocessing_inside)
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
        choices = tuple((choice.name, choice.candidates) for choice in (*space.units, *space.stages))
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
        return meters[key]

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

    def callbacks(self, step: str) -> list[keras.callbacks.Callback]:
        """Callbacks that every training uses: they write TensorBoard logs and keep account of the time."""
        keeps_time = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.note_time())
        return [TensorBoardScalars(self.config.run.logs(step)), keeps_time]

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
