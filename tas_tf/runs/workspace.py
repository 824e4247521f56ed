"""What the steps of a run work with: data, networks, devices and spaces, made when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.deploy.file_contents import measure_file
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.runs.config import RunConfig
from tas_tf.runs.run import Run, Step
from tas_tf.searching.run import prepare
from tas_tf.settings import require
from tas_tf.space.settings import SpaceSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.file_size import FileSize
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.network import check_fits, inherited
from tas_tf.training.seeding import seed_everything
from tas_tf.training.strategy import check_batch_size, make_strategy
from tas_tf.zoo.loading import in_precision, load_file, load_network

_VERBOSE = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}

#: Called with the run and the settings, by dotted name, that a step uses, when the step begins.
KeepSettings = Callable[["Workspace", Collection[str]], None]
#: Turns arguments that a text names in backticks, of a section of the config, into what the user knows them by.
Wording = Callable[[str, str | None], str]


@dataclass(frozen=True)
class Origin:
    """How a run was made, for its report.

    Attributes:
        settings: Values as the user gave them, by name.
        command: What makes the run again.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass
class Shared:
    """What all runs that lie in one another share; made when first needed, once for all that agree on the settings."""

    console: Console
    keep_settings: KeepSettings = lambda workspace, names: None
    wording: Wording = lambda text, section: text
    made_by: Callable[[Run], Origin] = lambda run: Origin()
    tasks: dict[Any, Task] = field(default_factory=dict)
    networks: dict[Any, keras.Model] = field(default_factory=dict)
    file_sizes: dict[Any, FileSize] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Workspace:
    """One run and what its steps work with.

    Attributes:
        config: What the run is told.
        shared: What it shares with the runs inside it.
        keeps_fresh: Whether `overwrite` replaces only results made from other settings, rather than any.
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
        """Prepares the process for a run: precision and seeds.

        Args:
            config: What the run is told.
            shared: Where messages go, and what is there already.
            keeps_fresh: See the class.

        Raises:
            UserError: No folder is named, or an argument doesn't fit the devices.
        """
        require(config, "run_dir")
        keras.mixed_precision.set_global_policy(config.precision)
        seed_everything(config.search.seed, deterministic=config.deterministic)
        workspace = cls(config, shared or Shared(Console()), keeps_fresh)
        if config.search.jit_compile and workspace.strategy.num_replicas_in_sync > 1:
            raise UserError("`jit_compile` works on one device. Expected `strategy`=one_device with it.")
        return workspace

    def rival(self, name: str) -> Workspace:
        """The workspace of a rival's run, see `RunConfig.rival`."""
        return replace(self, config=self.config.rival(name))

    def at_budgets(self) -> tuple[Workspace, ...]:
        """This workspace and those of further budgets, see `RunConfig.at_budgets`."""
        return (self, *(replace(self, config=config) for config in self.config.at_budgets()[1:]))

    @property
    def outermost(self) -> Workspace:
        """The workspace of the run that this one lies in."""
        return replace(self, config=self.config.outermost)

    def say(self, text: str, *, section: str | None = None, **style: Any) -> None:
        """Tells the user a line.

        Args:
            text: Names arguments in backticks.
            section: Whose settings these are, where several have an argument of that name.
            **style: As rich takes it.
        """
        self.shared.console.print(self.shared.wording(text, section), highlight=False, soft_wrap=True, **style)

    @property
    def verbose(self) -> int | str:
        """How Keras shows progress."""
        return _VERBOSE[self.config.progress]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The devices."""
        return make_strategy(self.config.strategy)

    @property
    def task(self) -> Task:
        """The data."""
        data, tasks = self.config.data, self.shared.tasks
        if data not in tasks:
            tasks[data] = Task.load(**{field.name: getattr(data, field.name) for field in fields(data)})
        return tasks[data]

    @property
    def network(self) -> keras.Model:
        """The network that `model` names, for the data at hand; a file comes with its weights.

        Built once: Keras numbers unnamed layers anew each time, and shapes refer to layers by name.
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
            return in_precision(load_file(config.model_file), config.precision)
        height, width, channels = self.task.source.image_shape
        if height != width:
            raise UserError(f"Networks by name take square images. Received: {height}x{width}. Give `image_size`.")
        return load_network(
            name,
            num_classes=config.network.num_classes or self.task.source.num_classes,
            image_size=height,
            channels=config.network.channels or channels,
        )

    def free_memory(self) -> None:
        """Frees what a finished step leaves behind in Keras, which forgets the precision with it."""
        keras.backend.clear_session()
        keras.mixed_precision.set_global_policy(self.config.precision)

    def require_teacher(self) -> Path:
        """The file of the run's teacher.

        Raises:
            UserError: There is none yet.
        """
        path = self.config.teacher_run.teacher_model
        if not path.exists():
            argument = "teacher_from" if self.config.teacher_from else "run_dir"
            raise UserError(f"`{argument}`: there is no teacher, {path}. Run `teacher` first.")
        return path

    def load_teacher(self) -> keras.Model:
        """The teacher of the run.

        Raises:
            UserError: There is none yet.
        """
        return in_precision(load_file(self.require_teacher()), self.config.precision)

    def unpruned_network(self) -> keras.Model:
        """The teacher where there is one, else the network that `model` names.

        Raises:
            UserError: The teacher is another network than `model`.
        """
        config = self.config.outermost
        if not config.teacher_from and not config.teacher_run.teacher_model.exists():
            return self.network
        teacher = self.outermost.load_teacher()
        if config.network.model:
            named, found = (Graph.from_model(model) for model in (self.network, teacher))
            if named.digest != found.digest:
                raise UserError(
                    f"`model`: {config.network.model} is another network than the teacher in "
                    f"{config.teacher_run.path}, `{found.network}`. Give the teacher's, or another `run_dir`."
                )
        return teacher

    def space_of(self, model: keras.Model, *, anew: bool = False) -> SearchSpace:
        """What the search may change of a network.

        Args:
            model: The network.
            anew: Whether a shape is yet to be found, so that the one in the run, if any, has no say.
        """
        config = self.config
        shape = Shape.load(self.require_shape()) if config.shape else None
        if shape is None and not anew:
            runs = [one for one in (config, config.parent) if one is not None]
            found = [one.shape_path for one in runs if one.shape_path.exists()]
            shape = Shape.load(found[0]) if found else None
        return space_of(Graph.from_model(model), config.space, shape)

    def checked_space(self, model: keras.Model, *, anew: bool = False) -> SearchSpace:
        """As `space_of`, once it is clear that the data fits the network and batches fit data and devices.

        Raises:
            UserError: They don't.
        """
        space = self.space_of(model, anew=anew)
        check_fits(model, space, self.task)
        check_batch_size(self.strategy, self.config.student.batch_size)
        self.task.training(self.config.student.batch_size)
        return space

    def prepare(self, space: SearchSpace) -> tuple[CostModel, int]:
        """The cost model and the limit of the run's budget, see `tas_tf.searching.run.prepare`."""
        return prepare(space, self.config.budget, self.file_size(space))

    def file_size(self, space: SearchSpace) -> FileSize:
        """Measures the files that shapes of a space become, each once."""
        inside, sizes = self.config.export.preprocessing_inside, self.shared.file_sizes
        key = (self.config.data, inside, space.graph.digest, *space.unit)
        if key not in sizes:
            sizes[key] = FileSize(space, lambda student: measure_file(student, space, self.task, inside=inside))
        return sizes[key]

    def require_shape(self) -> Path:
        """The file of the shape to build.

        Raises:
            UserError: There is none yet.
        """
        path = self.config.shape_path
        if not path.exists():
            raise UserError(f"`shape`: there is no {path}. Run `search` first, or give `shape`.")
        return path

    def load_shape(self, space: SearchSpace) -> Shape:
        """The shape to build, checked.

        Raises:
            UserError: There is none yet, or it is another network's.
        """
        shape = Shape.load(self.require_shape())
        shape.check(space)
        return shape

    def start(self) -> tuple[str, Path | None]:
        """What the student's weights start from.

        Returns:
            `fresh`, `teacher` (its first filters), or `filters` or `supernet` with the file, a network of the shape.

        Raises:
            UserError: The supernet was asked for and left nothing beside the shape.
        """
        config = self.config
        filtered, searched = (
            config.shape_path.with_name(path.name)
            for path in (config.run.filtered_teacher, config.run.supernet_student)
        )
        if config.inherit == "none":
            return "fresh", None
        if config.inherit == "supernet":
            if not searched.exists():
                raise UserError(
                    f"`inherit`: there is no {searched}. Expected a shape that the search found, with the weights that "
                    "it leaves beside it. Run `search` first, or give another `inherit`."
                )
            return "supernet", searched
        if filtered.exists():
            return "filters", filtered
        return ("teacher" if config.inherit == "teacher" else "fresh"), None

    def load_start(self, teacher: keras.Model, space: SearchSpace, shape: Shape) -> keras.Model | None:
        """The network whose weights the student starts from; `None` for fresh ones.

        Raises:
            UserError: It has another shape.
        """
        source, path = self.start()
        if path is None:
            return inherited(teacher, space, shape) if source == "teacher" else None
        start = load_file(path)
        expected = build_student(space, shape)
        if [weight.shape for weight in start.weights] != [weight.shape for weight in expected.weights]:
            raise UserError(
                f"`inherit`: {path} isn't a network of the shape in {self.config.shape_path}. Make the shape again by "
                "the command that made it, or give `inherit`=none."
            )
        return start

    def callbacks(self, step: str) -> list[keras.callbacks.Callback]:
        """Callbacks of every training: logs for TensorBoard."""
        return [TensorBoardScalars(self.config.run.logs(step))]

    def rival_students(self, names: Sequence[str] | None = None) -> dict[str, Path]:
        """Files of the rivals' students: of those named, else of all that are there."""
        if names is None:
            models = (self.config.run.path / "rivals").glob("*/student/model.keras")
            names = sorted(path.parents[1].name for path in models)
        return {name: self.config.rival(name).run.student_model for name in names}

    def keep_settings(self, record: Step) -> None:
        """Keeps the settings of the run beside its results.

        A single step's command is often given few arguments: what earlier steps were given stays.

        Args:
            record: The step, whose settings count as they are now, given or not.
        """
        self.config.run.prepare()
        self.shared.keep_settings(self, tuple(record.setting_names))


def space_of(graph: Graph, settings: SpaceSettings, shape: Shape | None = None) -> SearchSpace:
    """What the settings let the search change of a network.

    Args:
        graph: The network.
        settings: What may change.
        shape: One whose units count where `couple_trunk` isn't given.
    """
    return SearchSpace.from_graph(
        graph,
        couple_trunk=settings.couple_trunk,
        units=None if shape is None else shape.widths,
        axes=settings.axes,
        width_divisor=settings.width_divisor,
        search_dense=settings.search_dense,
    )
