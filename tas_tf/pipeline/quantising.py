"""The step that fine-tunes a network of a run for 8 bits, if an export needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras

from tas_tf.baselines.rivals import RIVALS
from tas_tf.errors import UserError, speaking_of
from tas_tf.extras import require_extra
from tas_tf.files import write_json
from tas_tf.pipeline.memory import expected_shape, fine_tuning_memory
from tas_tf.pipeline.steps import DISTILLATION, VERSION, Effort, RunStep, data_inputs, settings_of, student_share
from tas_tf.pipeline.training import TEACHER_PASS
from tas_tf.qat.errors import QatError
from tas_tf.qat.train import check_quantisable, train_quantised
from tas_tf.runs.run import Step
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import recorded
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.memory import StepMemory
from tas_tf.training.network import logits_of

QAT_FORMAT, CALIBRATED_FORMAT = "qat_int8", "int8"


class QatStep(RunStep):
    """Fine-tunes one network for 8 bits.

    Args:
        owner: The run that the network belongs to.
        role: Role of the network in that run, `student` or `teacher`.
        name: Name of the network in messages and files.
        costs_like: The run whose student costs about as much as this network; by default `owner`.
    """

    section, trains = "qat", True

    def __init__(self, owner: Workspace, role: str, name: str, *, costs_like: Workspace | None = None) -> None:
        super().__init__(owner, f"qat {name}")
        self.role, self.name, self._costs_like = role, name, costs_like or owner

    @property
    def file(self) -> Path:
        """Path of the network to fine-tune."""
        return self.workspace.require_teacher() if self.role == "teacher" else self.workspace.config.run.student_model

    @property
    def folder(self) -> Path:
        """Folder of the network fine-tuned for 8 bits."""
        return self.workspace.config.run.quantised(self.role)

    @property
    def float_control(self) -> bool:
        """Whether to fine-tune without quantisation as well; only for the run's student."""
        return self.name == "student" and self.workspace.config.qat.float_control

    @property
    def _is_unpruned(self) -> bool:
        rival = RIVALS.get(self.name)
        return self.role == "teacher" or (rival is not None and rival.shape == "full")

    @property
    def record(self) -> Step:
        """Record of the result, which depends on the network, the teacher, the data and the training.

        Raises:
            UserError: There is no teacher.
        """
        workspace, config = self.workspace, self.workspace.config
        inputs = {"student": config.run.student_model} if self.role == "student" else {}
        if config.kd or self.role == "teacher":
            inputs["teacher"] = workspace.require_teacher()
        training = recorded(config.qat, without=() if config.kd else DISTILLATION)
        return config.run.step(
            f"qat_{self.role}",
            settings={
                **settings_of(workspace, "data", names=["kd"]),
                "qat": {**training, "float_control": self.float_control},
            },
            inputs={**inputs, **data_inputs(workspace)},
            outputs=[self.folder, config.run.metrics(f"qat_{self.role}")],
            version=VERSION,
        )

    def stays(self, record: Step) -> bool:
        """Whether the result is up to date; here `overwrite` replaces only results made from other settings."""
        return record.status() == "fresh"

    def effort(self, space: SearchSpace) -> Effort:
        """A training whose cost follows that of the network, plus the teacher's forward pass."""
        config = self.workspace.config
        _, per_epoch = self.workspace.task.training(config.qat.batch_size)
        share = 1.0 if self._is_unpruned else student_share(self._costs_like, space)
        relative = share + (TEACHER_PASS if config.kd else 0.0)
        epochs = config.qat.epochs * (2 if self.float_control else 1)
        return Effort(epochs, epochs * per_epoch, relative)

    def memory(self, space: SearchSpace) -> StepMemory:
        """That of a network whose activations are rounded, and of the teacher."""
        config = self.workspace.config
        shape = Shape.full(space) if self._is_unpruned else expected_shape(self._costs_like, space)
        return fine_tuning_memory(self.workspace, space, shape, config.qat, taught=config.kd)

    def work(self, record: Step) -> None:
        """Fine-tunes the network for 8 bits and writes it.

        Raises:
            UserError: The network is missing or unsuitable, a result from other settings exists, or training diverges.
        """
        workspace, config = self.workspace, self.workspace.config
        model, taught_by = workspace.load(self.file), None
        if config.kd:
            original = workspace.load_teacher()
            with workspace.strategy.scope():
                taught_by = logits_of(original, workspace.space_of(original))
        self.begin(record)
        if config.progress != "none":
            workspace.say(f"export: fine-tuning {self.name} for {QAT_FORMAT}")
        metrics = train_quantised(
            model,
            workspace.task,
            config.qat,
            self.folder,
            strategy=workspace.strategy,
            teacher=taught_by,
            float_control=self.float_control,
            saving=workspace.saving(record),
            log_dir=config.run.logs(record.name),
            verbose=workspace.verbose,
        )
        write_json(config.run.metrics(record.name), metrics)
        record.finish()
        workspace.free_memory()


def qat_steps(workspace: Workspace, rivals: Sequence[str]) -> list[QatStep]:
    """One step each for the student, the rivals, and the teacher, which a run shares with the runs inside it."""
    return [
        QatStep(workspace, "student", "student"),
        QatStep(workspace.outermost, "teacher", "teacher"),
        *(QatStep(workspace.rival(name), "student", name, costs_like=workspace) for name in rivals),
    ]


def run_qat(workspace: Workspace, rivals: Sequence[str]) -> None:
    """Fine-tunes student, teacher and rivals for 8 bits unless that is done.

    Args:
        workspace: The run.
        rivals: Names of the rivals.

    Raises:
        UserError: See `QatStep.work`.
    """
    for step in qat_steps(workspace, rivals):
        step.run()


def settle_formats(workspace: Workspace, rivals: Sequence[str]) -> list[str]:
    """Decides which formats to write, depending on whether all networks can be fine-tuned for 8 bits.

    Args:
        workspace: The run.
        rivals: Names of the rivals.

    Raises:
        UserError: A network can't be fine-tuned for 8 bits, and `qat.fallback` is off.
    """
    formats = list(dict.fromkeys(workspace.config.export.formats))
    if QAT_FORMAT not in formats:
        return formats
    waiting = [step for step in qat_steps(workspace, rivals) if step.record.status() != "fresh"]
    fallback = workspace.config.qat.fallback
    try:
        for step in waiting:
            check_trainable(step.name, workspace.load(step.file), fallback=fallback)
    except QatError as error:
        if not fallback:
            raise
        workspace.say(f"{CALIBRATED_FORMAT} instead of {QAT_FORMAT}: {error}")
        return list(dict.fromkeys(CALIBRATED_FORMAT if each == QAT_FORMAT else each for each in formats))
    return formats


def check_trainable(name: str, model: keras.Model, *, fallback: bool = False) -> None:
    """Checks that a network can be fine-tuned for 8 bits.

    Args:
        name: Name of the network, for messages.
        model: The network.
        fallback: Whether another format is written if it can't.

    Raises:
        QatError: The network can't be fine-tuned for 8 bits. The message says why, and what to do.
        UserError: The extra `qat` is missing, for which there is no fallback.
    """
    require_extra("qat")
    try:
        if len(model.inputs) > 1:
            raise UserError(f"It takes images alone. Received: {len(model.inputs)} inputs.")
        with speaking_of("qat"):
            check_quantisable(model)
    except UserError as error:
        message = f"`formats`: the {name} can't become {QAT_FORMAT}. {error}"
        if not fallback:
            message += f" Leave {QAT_FORMAT} out, or give `qat.fallback` to write {CALIBRATED_FORMAT} instead."
        raise QatError(message) from error
