"""What the commands share: run folder, devices, data, network and space, made from the flags when first needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import keras
from absl import flags

from tas_tf.budget import Budget
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.graph import Graph
from tas_tf.searching import prepare
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from tas_tf.training import Run, TensorBoardScalars, make_strategy, seed_everything
from tas_tf.zoo import load_network
from tas_tf.zoo.loading import load_file
from trainers import options

_VERBOSE = {"auto": "auto", "bar": 1, "lines": 2, "none": 0}
#: Flags of the training group that only the teacher has.
TEACHER_ONLY = ("teacher_epochs", "teacher_warmup", "teacher_lr")


class Session:
    """One command's view of a run.

    Args:
        run_dir: The run folder; that of `--run_dir` unless given.
        teacher_from: The run folder whose teacher is used; that of `--teacher_from`, else the run's own.
        task: Data that is loaded already.
    """

    def __init__(self, run_dir: Path | None = None, teacher_from: Path | None = None, task: Task | None = None) -> None:
        self.run = Run(run_dir or Path(options.required(options.RUN_DIR)))
        given = teacher_from or (Path(options.TEACHER_FROM.value) if options.TEACHER_FROM.value else None)
        self.teacher_run = Run(given) if given else self.run
        self.seed = options.SEED.value
        keras.mixed_precision.set_global_policy(options.PRECISION.value)
        seed_everything(self.seed, deterministic=options.DETERMINISTIC.value)
        self.strategy = make_strategy(options.STRATEGY.value)
        if options.JIT_COMPILE.value and self.strategy.num_replicas_in_sync > 1:
            raise UserError("`--jit_compile` works on one device. Expected --strategy=one_device with it.")
        if task is not None:
            self.task = task

    @property
    def verbose(self) -> int | str:
        """How Keras shows progress."""
        return _VERBOSE[options.PROGRESS.value]

    @cached_property
    def task(self) -> Task:
        """The data."""
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

    def build_network(self) -> keras.Model:
        """The network that `--model` names, for the data at hand; a file comes with its weights."""
        height, width, channels = self.task.source.image_shape
        if height != width and not self.model_file:
            raise UserError(f"Networks by name take square images. Received: {height}x{width}. Give --image_size.")
        return load_network(
            options.required(options.MODEL),
            num_classes=self.task.source.num_classes,
            image_size=height,
            channels=channels,
        )

    @property
    def model_file(self) -> Path | None:
        """The file that `--model` names, if it is one."""
        name = options.required(options.MODEL)
        return Path(name) if name.endswith((".keras", ".h5")) or Path(name).is_file() else None

    def load_teacher(self) -> keras.Model:
        """The teacher of the run.

        Raises:
            UserError: There is none yet.
        """
        path = self.teacher_run.teacher_model
        if not path.exists():
            raise UserError(f"`run_dir`: there is no teacher, {path}. Run `python -m trainers.teacher` first.")
        return load_file(path)

    def space_of(self, model: keras.Model) -> SearchSpace:
        """What the flags let the search change of a network."""
        return SearchSpace.from_graph(
            Graph.from_model(model),
            axes=options.AXES_SEARCHED.value,
            width_divisor=options.WIDTH_DIVISOR.value,
            couple_trunk=options.COUPLE_TRUNK.value,
            search_dense=options.SEARCH_DENSE.value,
        )

    @property
    def shape_path(self) -> Path:
        """The shape to build: that of `--shape`, else the run's own."""
        return Path(options.SHAPE.value) if options.SHAPE.value else self.run.search_shape

    def load_shape(self, space: SearchSpace) -> Shape:
        """The shape to build, checked.

        Raises:
            UserError: There is none yet, or it is another network's.
        """
        if not self.shape_path.exists():
            raise UserError(
                f"`shape`: there is no {self.shape_path}. Run `python -m trainers.search` first, or give --shape."
            )
        shape = Shape.load(self.shape_path)
        shape.check(space)
        return shape

    def check_budget(self) -> None:
        """Refuses a budget that can't be reached before anything is trained.

        Raises:
            UserError: It can't; says what can.
        """
        prepare(self.space_of(self.build_network()), Budget.parse(options.BUDGET.value))

    def refuse_other_shape(self, shape: Shape) -> None:
        """Refuses to put another shape in the place of one that is there, but with `--overwrite`.

        Raises:
            UserError: Another one is there.
        """
        path = self.run.search_shape
        if path.exists() and Shape.load(path) != shape and not options.OVERWRITE.value:
            raise UserError(f"`run_dir`: {path} is another shape. Use --overwrite, or another --run_dir.")

    def restore_flags(self) -> None:
        """Sets flags that weren't given to what the run was made with, as its flagfile says."""
        path = self.run.flags_cfg
        if path.exists():
            given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
            lines = [line for line in path.read_text().splitlines() if _flag_name(line) not in given]
            flags.FLAGS(["", *lines])

    def callbacks(self, step: str) -> list[keras.callbacks.Callback]:
        """Callbacks of every training: logs for TensorBoard."""
        return [TensorBoardScalars(self.run.logs(step))]

    def write_flags(self) -> None:
        """Keeps the settings of the run beside its results, as a flagfile."""
        self.run.prepare()
        lines = [flags.FLAGS[holder.name].serialize() for group in options.GROUPS.values() for holder in group]
        kept = [line for entry in lines for line in entry.splitlines() if line and not _is_momentary(line)]
        self.run.flags_cfg.write_text("\n".join(kept) + "\n")


def _flag_name(line: str) -> str:
    name = line.lstrip("-").partition("=")[0]
    return name if name in flags.FLAGS else name.removeprefix("no")


def _is_momentary(line: str) -> bool:
    return _flag_name(line) in ("overwrite", "dry_run", "json", "progress", "kind")
