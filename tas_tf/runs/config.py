"""All settings of a run in one frozen description."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tas_tf.baselines.rivals import RIVALS
from tas_tf.baselines.settings import BaselineSettings
from tas_tf.baselines.shapes import RANKED_KINDS
from tas_tf.cost.budget import Budget
from tas_tf.data.settings import DataSettings
from tas_tf.deploy.settings import ExportSettings
from tas_tf.errors import UserError
from tas_tf.importance.settings import ImportanceSettings
from tas_tf.latency.settings import LatencySettings
from tas_tf.objectives.choose import TASKS
from tas_tf.published import shape_file
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.race.settings import RaceSettings
from tas_tf.recipes import DEFAULT, RECIPES, SEARCHING
from tas_tf.runs.run import Run
from tas_tf.searching.settings import SearchSettings
from tas_tf.settings import Settings, require, setting
from tas_tf.space.settings import SpaceSettings
from tas_tf.student.build import INITIAL_WEIGHTS
from tas_tf.timing.duration import parse_duration
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import STRATEGIES
from tas_tf.zoo.loading import is_file_name

#: Folders in a run folder that hold further runs.
RUNS_INSIDE = _RIVALS_FOLDER, _BUDGETS_FOLDER = "rivals", "budgets"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network to make smaller."""

    model: str | None = setting(
        None,
        "The network to make smaller: resnet20 (8, 14, 20, 32, 44, 56, 110, 164; for ImageNet 18, 34, 50), "
        "keras.applications.NAME, or the path of a .keras or .h5 file.",
    )
    num_classes: int | None = setting(
        None, "Number of classes; by default that of the data, or 10 without data.", at_least=2
    )
    task: str | None = setting(
        None,
        "What the network is for; by default, the loss that its file was compiled with and its last activation tell.",
        choices=TASKS,
        recorded=False,
    )
    loss: str | None = setting(
        None,
        "The loss that networks are trained with, by its name in Keras, such as mae or binary_focal_crossentropy; by "
        "default, the one that the file was compiled with, or else that of the task.",
        recorded=False,
    )
    train_model: bool = setting(
        False,
        "Trains the network in a file from the weights in it, which may be random, instead of taking it over.",
        recorded=False,
    )
    custom_objects: tuple[str, ...] = setting(
        (),
        "Python files that define the network's own layer classes and functions. They are imported; later commands on "
        "the run import them again.",
        recorded=False,
    )
    unsafe_load: bool = setting(
        False,
        "Also loads Lambda layers: the Python code inside a file runs then, and can do whatever you can do. Each "
        "command needs it again.",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class QatSettings(FineTuneSettings):
    """How networks are fine-tuned for 8 bits, and what happens if that is impossible."""

    fallback: bool = setting(
        False, "Writes int8 instead of qat_int8 for networks that can't be fine-tuned for 8 bits.", recorded=False
    )
    float_control: bool = setting(
        False,
        "Also fine-tunes the float student for as many epochs, to show how much fine-tuning alone helps.",
        recorded=False,
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """All settings of a run.

    Attributes:
        network: The network to make smaller.
        data: The images.
        space: Which parts of the network may change.
        teacher: How the unpruned network is trained.
        ranking: How the channels of the trained network are ranked.
        race: How shapes compete.
        search: How widths and depths are searched differentiably.
        student: How the small network is trained.
        qat: How networks are fine-tuned for 8 bits.
        baseline: Which shape is made without a search.
        export: Which files are written, and how they are checked and timed.
        latency: What a budget in time refers to.
        parent: The run whose folder holds this one, if this run belongs to a rival or to a further budget.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    teacher: TrainSettings = field(default_factory=TrainSettings)
    ranking: ImportanceSettings = field(default_factory=ImportanceSettings)
    race: RaceSettings = field(default_factory=RaceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    student: TrainSettings = field(default_factory=TrainSettings)
    qat: QatSettings = field(default_factory=QatSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    parent: RunConfig | None = None

    run_dir: str | None = setting(None, "Folder of the run, for all results, logs and checkpoints.", recorded=False)
    teacher_from: str | None = setting(None, "Another run folder whose teacher is used.", recorded=False)
    shape: str | None = setting(
        None,
        "Widths and depths to use instead of a search: a shape.json, or published/NAME for a shape by the paper's "
        "authors, such as published/cifar10-resnet56.",
        recorded=False,
    )
    recipe: str = setting(
        DEFAULT,
        "How the student is found: by a race of several shapes from the trained weights, whose winner is then trained "
        "for few epochs (fast) or more (balanced), or by the differentiable search alone, as in the paper. If "
        f"search_epochs is given, {SEARCHING} is the default.",
        choices=tuple(RECIPES),
        recorded=False,
    )
    time: str | None = setting(
        None,
        "Time for the whole pipeline, such as 20m, 2h or 1h30m: it determines the number of shapes in the race and the "
        "epochs of the trainings.",
        recorded=False,
    )
    budgets: tuple[Budget, ...] = setting(
        (Budget.parse("macs:0.5"),),
        "Highest cost of the student: macs:0.5 (a share), macs:40M, params:100k, bytes:400k (size of the float32 "
        ".tflite file), or latency:0.5 or latency:2ms (time of one image, see `latency.file_format`). Repeat it to get "
        "several students; each has a race of its own, or they share a search, which the first budget drives.",
        recorded=False,
    )
    inherit: str = setting(
        "auto",
        "Weights that the student starts from: none (fresh weights), teacher (its most important filters, see "
        "`importance`), race or supernet (what the race or the search saved), or auto: those of the race or else of "
        "the teacher; with `recipe`=paper none, except for the baselines l1 and fpgm.",
        choices=("auto", *INITIAL_WEIGHTS),
        recorded=False,
    )
    kd: bool = setting(True, "Trains the student on the teacher's outputs as well as on the labels.")
    rivals: tuple[str, ...] = setting(
        (),
        f"Other students that the pipeline trains in the same way for comparison: {', '.join(RIVALS)}.",
        choices=tuple(RIVALS),
        recorded=False,
    )
    strategy: str = setting(
        "auto",
        "Devices: all GPUs if there are two or more, else one (auto); one (one_device); all (mirrored); or all of "
        "several machines (multi_worker), on each of which the same command is started.",
        choices=STRATEGIES,
        recorded=False,
    )
    precision: str = setting("float32", "Number format that layers compute in.", choices=("float32", "mixed_bfloat16"))
    deterministic: bool = setting(False, "Makes results repeatable bit for bit; slower on GPUs.")
    checkpoint_minutes: float = setting(
        10.0,
        "Minutes between checkpoints inside an epoch. A run that is interrupted, or ended by SIGTERM, goes on from the "
        "last one.",
        above=0,
        recorded=False,
    )
    overwrite: bool = setting(
        False,
        "Replaces existing results; the pipeline replaces only results made with different settings.",
        recorded=False,
    )
    progress: str = setting("auto", "How progress is shown.", choices=("auto", "bar", "lines", "none"), recorded=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time is not None:
            parse_duration(self.time)  # rejects what isn't a duration

    def check_budgets(self) -> None:
        """Checks that a run can have several budgets; a mere description of costs always can.

        Raises:
            UserError: There are several budgets, and the shape or the initial weights fit only one.
        """
        if len(self.budgets) > 1 and self.shape:
            raise UserError("`budgets`: several budgets need a search. Leave out `shape`, or give one budget.")
        if len(self.budgets) > 1 and self.inherit == "supernet":
            raise UserError(
                "`inherit`=supernet works with one budget only. Give a single `budgets`, or `inherit`=teacher."
            )

    @property
    def run(self) -> Run:
        """The folder of the run.

        Raises:
            UserError: `run_dir` isn't set.
        """
        return Run(require(self, "run_dir"))

    @property
    def teacher_run(self) -> Run:
        """The folder that holds the teacher."""
        return Run(self.teacher_from) if self.teacher_from else self.run

    @property
    def outermost(self) -> RunConfig:
        """The outermost run whose folder holds this one; the run itself if it isn't inside another."""
        return self if self.parent is None else self.parent.outermost

    @property
    def budget(self) -> Budget:
        """Highest cost of the student: the first of the budgets."""
        return self.budgets[0]

    @property
    def races(self) -> bool:
        """Whether shapes compete in a race, from the trained weights, rather than in the differentiable search."""
        return self.recipe != SEARCHING

    @property
    def model_file(self) -> Path | None:
        """The file that `model` names; `None` if `model` isn't a file."""
        name = self.network.model or ""
        return Path(name) if name and is_file_name(name) else None

    @property
    def takes_over(self) -> bool:
        """Whether the network in the user's file becomes the teacher as it is."""
        return self.model_file is not None and not self.network.train_model

    @property
    def shape_path(self) -> Path:
        """Path of the shape to build: the file that `shape` names, by default the run's own."""
        return shape_file(self.shape) if self.shape else self.run.search_shape

    @property
    def random_training(self) -> TrainSettings:
        """Settings of the brief training that chooses one of several random shapes."""
        return replace(self.student, epochs=self.baseline.random_epochs, warmup_epochs=0)

    def rival(self, name: str) -> RunConfig:
        """The run of a rival, inside this run's folder. It shares teacher and data, and the shape unless it differs."""
        rival, folder = RIVALS[name], self.run.path / _RIVALS_FOLDER / name
        same = rival.shape == "searched"
        return replace(
            self,
            run_dir=str(folder),
            teacher_from=str(self.teacher_run.path),
            budgets=self.budgets[:1],
            shape=(self.shape or str(self.run.search_shape)) if same else None,
            # The chosen filters are what such a rival is compared by.
            inherit="auto" if rival.shape in RANKED_KINDS else self.inherit,
            kd=self.kd and rival.kd,
            rivals=(),
            parent=self,
        )

    @property
    def trained_rivals(self) -> list[str]:
        """Names of the rivals inside this run's folder that have been trained."""
        return [name for name in RIVALS if self.rival(name).run.student_model.exists()]

    def at_budgets(self) -> tuple[RunConfig, ...]:
        """This run, and one run inside its folder for each further budget, which shares teacher, data and search."""
        _, *others = dict.fromkeys(self.budgets)
        return (
            self,
            *(
                replace(
                    self,
                    run_dir=str(self.run.path / _BUDGETS_FOLDER / str(budget).replace(":", "_")),
                    teacher_from=str(self.teacher_run.path),
                    budgets=(budget,),
                    parent=self,
                )
                for budget in others
            ),
        )
