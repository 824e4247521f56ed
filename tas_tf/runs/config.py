"""Everything that a run is told, as one frozen description."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tas_tf.baselines.rivals import RIVALS
from tas_tf.baselines.settings import BaselineSettings
from tas_tf.cost.budget import Budget
from tas_tf.data.settings import DataSettings
from tas_tf.deploy.settings import ExportSettings
from tas_tf.errors import UserError
from tas_tf.published import shape_file
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.runs.run import Run
from tas_tf.searching.settings import SearchSettings
from tas_tf.settings import Settings, require, setting
from tas_tf.space.settings import SpaceSettings
from tas_tf.student.filters import CRITERIA
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import STRATEGIES


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network to make smaller."""

    model: str | None = setting(
        None,
        "The network to make smaller: resnet20 (8, 14, 20, 32, 44, 56, 110, 164; for ImageNet 18, 34, 50), "
        "keras.applications.NAME, or the path of a .keras file.",
    )
    num_classes: int | None = setting(None, "Number of classes; by default the data's, without data 10.", at_least=2)
    channels: int | None = setting(None, "Channels of the images; by default the data's, without data 3.", at_least=1)


@dataclass(frozen=True, kw_only=True)
class QatSettings(FineTuneSettings):
    """How networks are trained for 8 bits, and what happens where that is impossible."""

    fallback: bool = setting(
        False, "Writes int8 instead of qat_int8 for networks that can't be fine-tuned for 8 bits.", recorded=False
    )
    float_control: bool = setting(
        False, "Also fine-tunes the float student for as long, to show what fine-tuning alone gains.", recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Everything that a run is told.

    Attributes:
        network: The network to make smaller.
        data: The images.
        space: What of the network may change.
        teacher: How the unpruned network is trained.
        search: How widths and depths are searched.
        student: How the small network is trained.
        qat: How networks are trained for 8 bits.
        baseline: Which shape is made without a search.
        export: What is written, and how it is checked and timed.
        parent: The run whose folder holds this one, the run of a rival or of a further budget.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    teacher: TrainSettings = field(default_factory=TrainSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    student: TrainSettings = field(default_factory=TrainSettings)
    qat: QatSettings = field(default_factory=QatSettings)
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    parent: RunConfig | None = None

    run_dir: str | None = setting(None, "Folder of the run, for all results, logs and checkpoints.", recorded=False)
    teacher_from: str | None = setting(None, "Another run folder whose teacher is used.", recorded=False)
    shape: str | None = setting(
        None,
        "Widths and depths to use instead of a search: a shape.json, or published/NAME, a shape of the paper's authors "
        "such as published/cifar10-resnet56.",
        recorded=False,
    )
    budgets: tuple[Budget, ...] = setting(
        (Budget.parse("macs:0.5"),),
        "What the student may cost: macs:0.5 (a share), macs:40M, params:100k, or bytes:400k (of the float32 .tflite "
        "file). Repeat it for several students from one search; the first budget drives the search.",
        recorded=False,
    )
    inherit: str = setting(
        "auto",
        "Whose weights the student starts from; auto: the chosen filters of l1 and fpgm, otherwise none.",
        choices=("auto", "none", "teacher", "supernet"),
        recorded=False,
    )
    kd: bool = setting(True, "Trains the student on the teacher's outputs besides the labels.")
    rivals: tuple[str, ...] = setting(
        (),
        f"Other students that the pipeline trains the same way, to compare: {', '.join(RIVALS)}.",
        choices=tuple(RIVALS),
        recorded=False,
    )
    strategy: str = setting(
        "auto",
        "Devices: all GPUs if there are two or more, else one (auto); one (one_device); or all (mirrored).",
        choices=STRATEGIES,
        recorded=False,
    )
    precision: str = setting("float32", "What layers compute in.", choices=("float32", "mixed_bfloat16"))
    deterministic: bool = setting(False, "Makes results repeatable bit for bit; slower on GPUs.")
    overwrite: bool = setting(
        False,
        "Replaces existing results; the pipeline replaces only results made from other settings.",
        recorded=False,
    )
    progress: str = setting("auto", "How progress is shown.", choices=("auto", "bar", "lines", "none"), recorded=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.budgets) > 1 and self.shape:
            raise UserError("`budgets`: several need a search. Leave out `shape`, or give one budget.")
        if len(self.budgets) > 1 and self.inherit == "supernet":
            raise UserError(
                "`inherit`=supernet suits the shape of one budget. Expected a single `budgets` with it, or "
                "`inherit`=teacher."
            )

    @property
    def run(self) -> Run:
        """The folder of the run.

        Raises:
            UserError: None is named.
        """
        return Run(require(self, "run_dir"))

    @property
    def teacher_run(self) -> Run:
        """The folder that holds the teacher."""
        return Run(self.teacher_from) if self.teacher_from else self.run

    @property
    def outermost(self) -> RunConfig:
        """The run that this one lies in, if it is that of a rival or of a further budget."""
        return self if self.parent is None else self.parent.outermost

    @property
    def budget(self) -> Budget:
        """What the student may cost."""
        return self.budgets[0]

    @property
    def model_file(self) -> Path | None:
        """The file that `model` names, if it is one."""
        name = self.network.model or ""
        return Path(name) if name.endswith((".keras", ".h5")) or Path(name).is_file() else None

    @property
    def shape_path(self) -> Path:
        """The shape to build: that of `shape`, else the run's own."""
        return shape_file(self.shape) if self.shape else self.run.search_shape

    @property
    def random_training(self) -> TrainSettings:
        """The brief training by which one of several random shapes is chosen."""
        return replace(self.student, epochs=self.baseline.random_epochs, warmup_epochs=0)

    def rival(self, name: str) -> RunConfig:
        """A rival's run, inside this one's folder: teacher and data are shared, the shape where it is the same."""
        rival, folder = RIVALS[name], self.run.path / "rivals" / name
        same = rival.shape == "searched"
        return replace(
            self,
            run_dir=str(folder),
            teacher_from=str(self.teacher_run.path),
            budgets=self.budgets[:1],
            shape=(self.shape or str(self.run.search_shape)) if same else None,
            # The filters chosen are what there is to compare.
            inherit="auto" if rival.shape in CRITERIA else self.inherit,
            kd=self.kd and rival.kd,
            parent=self,
        )

    def at_budgets(self) -> tuple[RunConfig, ...]:
        """This run, and for each further budget one inside its folder, which shares teacher, data and search."""
        _, *others = dict.fromkeys(self.budgets)
        return (
            self,
            *(
                replace(
                    self,
                    run_dir=str(self.run.path / "budgets" / str(budget).replace(":", "_")),
                    teacher_from=str(self.teacher_run.path),
                    budgets=(budget,),
                    parent=self,
                )
                for budget in others
            ),
        )
