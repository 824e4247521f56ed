"""What the commands share: run folder, devices, data, network and space, made from the flags when first needed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import keras

from tas_tf.baselines.rivals import RIVALS
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.trunk import make_space
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.published import shape_file
from tas_tf.runs.run import Run
from tas_tf.searching.run import prepare
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.file_size import FileSize
from tas_tf.student.filters import CRITERIA
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.network import check_fits, inherited
from tas_tf.training.seeding import seed_everything
from tas_tf.training.strategy import check_batch_size, make_strategy
from tas_tf.zoo.loading import in_precision, load_file, load_network
from trainers import options
from trainers.file_metadata import measure_file
from trainers.run_flags import restore_flags, write_flags

_VERBOSE = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}
#: Flags of the training group that only the teacher has.
TEACHER_ONLY = ("teacher_epochs", "teacher_warmup", "teacher_lr")


class Session:
    """One command's view of a run.

    Args:
        keeps_what_is_up_to_date: Whether `--overwrite` replaces only what was made from other settings, rather than
            whatever is there.
    """

    def __init__(self, *, keeps_what_is_up_to_date: bool = False) -> None:
        self.keeps_what_is_up_to_date = keeps_what_is_up_to_date
        self.run = Run(options.required(options.RUN_DIR))
        self.teacher_run = Run(options.TEACHER_FROM.value) if options.TEACHER_FROM.value else self.run
        self._shape, self._inherit = options.SHAPE.value, options.INHERIT.value
        self._beside: Session | None = None
        self.budgets = tuple(dict.fromkeys(map(Budget.parse, options.BUDGET.value)))
        if self._shape and len(self.budgets) > 1:
            raise UserError("`--budget` can be repeated with a search alone. Leave out --shape, or give one budget.")
        if self._inherit == "supernet" and len(self.budgets) > 1:
            raise UserError(
                "`--inherit=supernet` suits the shape of one budget. Expected a single --budget with it, or "
                "--inherit=teacher."
            )
        self._file_sizes: dict[tuple, FileSize] = {}
        self.seed = options.SEED.value
        keras.mixed_precision.set_global_policy(options.PRECISION.value)
        seed_everything(self.seed, deterministic=options.DETERMINISTIC.value)
        self.strategy = make_strategy(options.STRATEGY.value)
        if options.JIT_COMPILE.value and self.strategy.num_replicas_in_sync > 1:
            raise UserError("`--jit_compile` works on one device. Expected --strategy=one_device with it.")

    @classmethod
    def of_earlier_run(cls) -> Session:
        """A run that is there already: flags that aren't given are what it was made with."""
        restore_flags(Run(options.required(options.RUN_DIR)))
        return cls()

    def rival(self, name: str) -> Session:
        """A rival's run, inside this one's folder; teacher and data are this one's, the shape where it is the same."""
        other = copy.copy(self)
        other.run, other.budgets = Run(self.run.path / "rivals" / name), self.budgets[:1]
        same = RIVALS[name].shape == "searched"
        other._shape, other._beside = (self._shape or str(self.run.search_shape)) if same else None, self
        if RIVALS[name].shape in CRITERIA:
            other._inherit = "auto"  # the filters chosen are what there is to compare
        return other

    def at_budgets(self) -> tuple[Session, ...]:
        """The run, and for each further budget one inside its folder, which shares teacher, data and search."""
        others = []
        for budget in self.budgets[1:]:
            other = copy.copy(self)
            other.run = Run(self.run.path / "budgets" / str(budget).replace(":", "_"))
            other.budgets, other._beside = (budget,), self
            others.append(other)
        return (self, *others)

    @property
    def outermost(self) -> Session:
        """The session of the run that this one lies in, if it is that of a rival or of a further budget."""
        return self if self._beside is None else self._beside.outermost

    @property
    def budget(self) -> Budget:
        """What the student may cost."""
        return self.budgets[0]

    def prepare(self, space: SearchSpace) -> tuple[CostModel, int]:
        """The cost model and the limit of the run's budget, see `tas_tf.searching.run.prepare`."""
        return prepare(space, self.budget, self.file_size(space))

    def file_size(self, space: SearchSpace) -> FileSize:
        """Measures the files that shapes of a space become, each once."""
        key = (space.graph.digest, *space.unit)
        if key not in self._file_sizes:
            self._file_sizes[key] = FileSize(space, lambda student: measure_file(student, space, self.task))
        return self._file_sizes[key]

    @property
    def verbose(self) -> int | str:
        """How Keras shows progress."""
        return _VERBOSE[options.PROGRESS.value]

    @cached_property
    def task(self) -> Task:
        """The data."""
        if self._beside is not None:
            return self._beside.task
        return Task.load(
            options.DATASET.value,
            data_dir=options.DATA_DIR.value,
            image_size=options.IMAGE_SIZE.value,
            test_share=options.TEST_SHARE.value,
            train_limit=options.TRAIN_LIMIT.value,
            preprocess=options.PREPROCESS.value,
            pad_crop=options.PAD_CROP.value,
            flip=options.FLIP.value,
            random_resized_crop=options.RANDOM_RESIZED_CROP.value,
            seed=self.seed,
        )

    @cached_property
    def network(self) -> keras.Model:
        """The network that `--model` names, for the data at hand; a file comes with its weights.

        Built once: Keras numbers unnamed layers anew each time, and shapes refer to layers by name.
        """
        if self._beside is not None:
            return self._beside.network
        name = options.required(options.MODEL)
        if self.model_file:
            return in_precision(load_file(self.model_file), options.PRECISION.value)
        height, width, channels = self.task.source.image_shape
        if height != width:
            raise UserError(f"Networks by name take square images. Received: {height}x{width}. Give --image_size.")
        return load_network(
            name,
            num_classes=options.NUM_CLASSES.value or self.task.source.num_classes,
            image_size=height,
            channels=options.CHANNELS.value or channels,
        )

    @property
    def model_file(self) -> Path | None:
        """The file that `--model` names, if it is one."""
        name = options.MODEL.value or ""
        return Path(name) if name.endswith((".keras", ".h5")) or Path(name).is_file() else None

    def free_memory(self) -> None:
        """Frees what a finished step leaves behind in Keras, which forgets the precision with it."""
        keras.backend.clear_session()
        keras.mixed_precision.set_global_policy(options.PRECISION.value)

    def rival_students(self, names: Sequence[str] | None = None) -> dict[str, Path]:
        """Files of the rivals' students: of those named, else of all that are there."""
        found = names if names is not None else sorted(path.parents[1].name for path in self._rival_models())
        return {name: self.rival(name).run.student_model for name in found}

    def _rival_models(self) -> list[Path]:
        return list((self.run.path / "rivals").glob("*/student/model.keras"))

    def require_teacher(self) -> Path:
        """The file of the run's teacher.

        Raises:
            UserError: There is none yet.
        """
        path = self.teacher_run.teacher_model
        if not path.exists():
            flag = "run_dir" if self.teacher_run is self.run else "teacher_from"
            raise UserError(f"`{flag}`: there is no teacher, {path}. Run `python -m trainers.teacher` first.")
        return path

    def load_teacher(self) -> keras.Model:
        """The teacher of the run.

        Raises:
            UserError: There is none yet.
        """
        return in_precision(load_file(self.require_teacher()), options.PRECISION.value)

    def unpruned_network(self) -> keras.Model:
        """The teacher where there is one, else the network that `--model` names.

        Raises:
            UserError: The teacher is another network than `--model`.
        """
        if self._beside is not None:
            return self._beside.unpruned_network()
        if self.teacher_run is self.run and not self.teacher_run.teacher_model.exists():
            return self.network
        teacher = self.load_teacher()
        if options.MODEL.value:
            named, found = (Graph.from_model(model) for model in (self.network, teacher))
            if named.digest != found.digest:
                raise UserError(
                    f"`model`: {options.MODEL.value} is another network than the teacher in {self.teacher_run.path}, "
                    f"`{found.network}`. Give the teacher's, or another --run_dir."
                )
        return teacher

    def space_of(self, model: keras.Model, *, anew: bool = False) -> SearchSpace:
        """What the flags let the search change of a network.

        Args:
            model: The network.
            anew: Whether a shape is yet to be found, so that the one in the run, if any, has no say.
        """
        shape = Shape.load(self.require_shape()) if self._shape else None
        if shape is None and not anew:
            runs = [session for session in (self, self._beside) if session is not None]
            found = [session.shape_path for session in runs if session.shape_path.exists()]
            shape = Shape.load(found[0]) if found else None
        return space_of(Graph.from_model(model), shape)

    def checked_space(self, model: keras.Model, *, anew: bool = False) -> SearchSpace:
        """As `space_of`, once it is clear that the data fits the network and batches fit data and devices.

        Raises:
            UserError: They don't.
        """
        space = self.space_of(model, anew=anew)
        check_fits(model, space, self.task)
        check_batch_size(self.strategy, options.BATCH_SIZE.value)
        self.task.training(options.BATCH_SIZE.value)
        return space

    @property
    def shape_path(self) -> Path:
        """The shape to build: that of `--shape`, else the run's own."""
        return shape_file(self._shape) if self._shape else self.run.search_shape

    def require_shape(self) -> Path:
        """The file of the shape to build.

        Raises:
            UserError: There is none yet.
        """
        if not self.shape_path.exists():
            raise UserError(
                f"`shape`: there is no {self.shape_path}. Run `python -m trainers.search` first, or give --shape."
            )
        return self.shape_path

    def start(self) -> tuple[str, Path | None]:
        """What the student's weights start from.

        Returns:
            `fresh`, `teacher` (its first filters), or `filters` or `supernet` with the file, a network of the shape.

        Raises:
            UserError: The supernet was asked for and left nothing beside the shape.
        """
        filtered, searched = (
            self.shape_path.with_name(path.name) for path in (self.run.filtered_teacher, self.run.supernet_student)
        )
        if self._inherit == "none":
            return "fresh", None
        if self._inherit == "supernet":
            if not searched.exists():
                raise UserError(
                    f"`inherit`: there is no {searched}. Expected a shape that `python -m trainers.search` found, with "
                    "the weights that it leaves beside it."
                )
            return "supernet", searched
        if filtered.exists():
            return "filters", filtered
        return ("teacher" if self._inherit == "teacher" else "fresh"), None

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
                f"`inherit`: {path} isn't a network of the shape in {self.shape_path}. Make the shape again by the "
                "command that made it, or give --inherit=none."
            )
        return start

    def load_shape(self, space: SearchSpace) -> Shape:
        """The shape to build, checked.

        Raises:
            UserError: There is none yet, or it is another network's.
        """
        shape = Shape.load(self.require_shape())
        shape.check(space)
        return shape

    def callbacks(self, step: str) -> list[keras.callbacks.Callback]:
        """Callbacks of every training: logs for TensorBoard."""
        return [TensorBoardScalars(self.run.logs(step))]

    def write_flags(self, used: Collection[str]) -> None:
        """Keeps the settings of the run beside its results, as a flagfile.

        A single step's command is often given few flags: what earlier ones were given stays.

        Args:
            used: Flags that count as they are now, given or not: the step's own.
        """
        places = {"run_dir": self.run.path, "shape": self._shape}
        if self.teacher_run is not self.run:
            places["teacher_from"] = self.teacher_run.path
        self.run.prepare()
        write_flags(self.run, used, self.budgets, places, keeps_earlier=not self.keeps_what_is_up_to_date)


def space_of(graph: Graph, shape: Shape | None = None) -> SearchSpace:
    """What the flags let the search change of a network.

    Args:
        graph: The network.
        shape: One whose units count where `--couple_trunk` isn't given.
    """
    return make_space(
        graph,
        couple_trunk=options.COUPLE_TRUNK.value,
        shape=shape,
        axes=options.AXES_SEARCHED.value,
        width_divisor=options.WIDTH_DIVISOR.value,
        search_dense=options.SEARCH_DENSE.value,
    )
