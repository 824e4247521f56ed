"""Trains the networks of a run for 8 bits, for those exports that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
from rich.console import Console

from tas_tf.baselines.rivals import RIVALS
from tas_tf.errors import UserError
from tas_tf.files import write_json
from tas_tf.qat.quantise import QatError
from tas_tf.qat.train import check_quantisable, train_quantised
from tas_tf.runs.run import Step
from tas_tf.training.network import logits_of
from tas_tf.zoo.loading import load_file
from trainers import options
from trainers.session import Session
from trainers.settings import qat_settings
from trainers.steps import begin, qat_step

QAT_FORMAT, CALIBRATED_FORMAT = "qat_int8", "int8"


def settle_formats(session: Session, formats: Sequence[str], others: Sequence[str]) -> list[str]:
    """What will be written, once it is clear whether networks can be trained for 8 bits.

    Args:
        session: The run.
        formats: As asked for.
        others: Names of the rivals.

    Raises:
        UserError: One can't, and there is no `--qat_fallback`.
    """
    if QAT_FORMAT not in formats:
        return list(formats)
    waiting = [one for one in networks_of(session, others) if one.step.status() != "fresh"]
    try:
        for one in waiting:
            check_trainable(one.name, load_file(one.file))
    except QatError as error:
        if not options.QAT_FALLBACK.value:
            raise
        Console().print(f"{CALIBRATED_FORMAT} instead of {QAT_FORMAT}: {error}", highlight=False, soft_wrap=True)
        return list(dict.fromkeys(CALIBRATED_FORMAT if each == QAT_FORMAT else each for each in formats))
    return list(formats)


def check_trainable(name: str, model: keras.Model) -> None:
    """Makes sure that a network can be trained for 8 bits.

    Raises:
        QatError: It can't; the message says why, and what to do.
    """
    try:
        check_quantisable(model)
    except UserError as error:
        message = f"`--formats`: the {name} can't become {QAT_FORMAT}. {error}"
        if not options.QAT_FALLBACK.value:
            message += f" Leave {QAT_FORMAT} out, or give --qat_fallback for {CALIBRATED_FORMAT} in its place."
        raise QatError(message) from error


def run_qat(session: Session, others: Sequence[str]) -> dict[str, Path]:
    """Trains student, teacher and rivals for 8 bits unless they are; gives their folders by name.

    Args:
        session: The run.
        others: Names of the rivals.

    Raises:
        UserError: A network is missing or can't be taken, there is one from other settings, or the training diverges.
    """
    networks = networks_of(session, others)
    for network in networks:
        _run_one(network)
    return {network.name: network.owner.run.quantised(network.role) for network in networks}


@dataclass(frozen=True)
class TrainedFor8Bits:
    """One network of a run.

    Attributes:
        name: What messages and files call it.
        owner: The run that it belongs to.
        role: `student` or `teacher`, within that run.
    """

    name: str
    owner: Session
    role: str

    @property
    def step(self) -> Step:
        """Its training. What more training alone would give is asked of the student."""
        return qat_step(self.owner, self.role, kd=self.kd, float_control=self.float_control)

    @property
    def kd(self) -> bool:
        """Whether it learns from the teacher, as it did before."""
        rival = RIVALS.get(self.name)
        return options.KD.value and (rival is None or rival.kd)

    @property
    def unpruned(self) -> bool:
        """Whether it has the unpruned network's shape."""
        return self.role == "teacher" or (self.name in RIVALS and RIVALS[self.name].shape == "full")

    @property
    def float_control(self) -> bool:
        """Whether it is fine-tuned without quantisation as well."""
        return self.name == "student" and options.QAT_FLOAT.value

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.owner.require_teacher() if self.role == "teacher" else self.owner.run.student_model


def networks_of(session: Session, others: Sequence[str]) -> list[TrainedFor8Bits]:
    """Student and teacher, which runs that lie in one another share, and rivals."""
    return [
        TrainedFor8Bits("student", session, "student"),
        TrainedFor8Bits("teacher", session.outermost, "teacher"),
        *(TrainedFor8Bits(name, session.rival(name), "student") for name in others),
    ]


def _run_one(network: TrainedFor8Bits) -> None:
    """Trains one network for 8 bits unless it is; `--overwrite` replaces only what was made from other settings."""
    session, role, step = network.owner, network.role, network.step
    if step.status() == "fresh":
        return
    settings, model, taught_by = qat_settings(), load_file(network.file), None
    if network.kd:
        original = session.load_teacher()
        with session.strategy.scope():
            taught_by = logits_of(original, session.space_of(original))
    begin(session, step)
    if options.PROGRESS.value != "none":
        print(f"export: fine-tuning {network.name} for {QAT_FORMAT}", flush=True)
    metrics = train_quantised(
        model,
        session.task,
        settings,
        session.run.quantised(role),
        strategy=session.strategy,
        teacher=taught_by,
        float_control=network.float_control,
        checkpoint_dir=step.checkpoints,
        log_dir=session.run.logs(step.name),
        verbose=session.verbose,
    )
    write_json(session.run.metrics(step.name), metrics)
    step.finish()
    session.free_memory()
