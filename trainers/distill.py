"""Trains the student of a shape: from the teacher and the labels, or from the labels alone.

Examples:
    python -m trainers.distill --flagfile=flags/cifar100.cfg
    python -m trainers.distill --run_dir=runs/mine --teacher_from=runs/other --shape=shape.json --nokd
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.classifier import TrainSettings, check_fits, logits_of, train_network
from tas_tf.training import read_json, write_json, write_model
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.steps import student_step


def main() -> None:
    """Trains the student of the run that the flags name."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["student"])
        return
    run_distill(session, kd=options.KD.value)
    metrics = read_json(session.run.metrics("student"))
    Console().print(
        f"{session.run.student_model}: test accuracy {metrics['accuracy']:.4f}, {metrics['macs']:,} MACs, "
        f"{metrics['params']:,} parameters. Next: python -m export.student with the same flags.",
        highlight=False,
        soft_wrap=True,
    )


def run_distill(session: Session, *, kd: bool) -> bool:
    """Trains the student unless it is there; whether anything was done.

    Args:
        session: The run.
        kd: Whether it learns from the teacher.
    """
    teacher = session.load_teacher()
    space = session.space_of(teacher)
    shape = session.load_shape(space)
    settings = student_settings()
    step = student_step(session, kd=kd)
    check_fits(teacher, space, session.task)
    if not step.begin(overwrite=options.OVERWRITE.value):
        return False
    session.write_flags()
    with session.strategy.scope():
        taught_by = logits_of(teacher, space) if kd else None
    result = train_network(
        space,
        shape,
        session.task,
        settings,
        strategy=session.strategy,
        teacher=taught_by,
        inherit_from=teacher if options.INHERIT.value == "teacher" else None,
        callbacks=session.callbacks("student"),
        checkpoint_dir=step.checkpoints,
        verbose=session.verbose,
    )
    write_model(session.run.student_model, result.model)
    write_json(session.run.metrics("student"), result.metrics)
    step.finish()
    return True


def student_settings() -> TrainSettings:
    """The student's settings from the flags."""
    return TrainSettings(
        epochs=options.STUDENT_EPOCHS.value,
        warmup_epochs=options.STUDENT_WARMUP.value,
        batch_size=options.BATCH_SIZE.value,
        lr=options.LEARNING_RATE.value if options.STUDENT_LR.value is None else options.STUDENT_LR.value,
        momentum=options.MOMENTUM.value,
        l2=options.L2.value,
        alpha=options.KD_ALPHA.value,
        temperature=options.KD_TEMPERATURE.value,
        seed=options.SEED.value,
    )


if __name__ == "__main__":
    run(main)
