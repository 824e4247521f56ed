"""Trains the student of a shape: from the teacher and the labels, or from the labels alone.

Examples:
    python -m trainers.distill --flagfile=flags/cifar100.cfg
    python -m trainers.distill --run_dir=runs/mine --teacher_from=runs/other --shape=shape.json --nokd
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.files import read_json, write_json, write_model
from tas_tf.training.network import logits_of, train_network
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.settings import student_settings
from trainers.steps import begin, is_up_to_date, student_step


def main() -> None:
    """Trains the student of the run that the flags name."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["student"])
        return
    for one in session.at_budgets():
        state = "" if run_distill(one, kd=options.KD.value) else " is up to date"
        metrics = read_json(one.run.metrics("student"))
        Console().print(
            f"{one.run.student_model}{state}: test accuracy {metrics['accuracy']:.4f}, {metrics['macs']:,} MACs, "
            f"{metrics['params']:,} parameters. Next: python -m export.student with the same flags.",
            highlight=False,
            soft_wrap=True,
        )
        one.free_memory()


def run_distill(session: Session, *, kd: bool) -> bool:
    """Trains the student unless it is there; whether anything was done.

    Args:
        session: The run.
        kd: Whether it learns from the teacher.

    Raises:
        UserError: Teacher, shape or the weights to start from are missing or don't fit each other or the data; there
            is a student from other settings; or the training diverges.
    """
    step = student_step(session, kd=kd)
    if is_up_to_date(session, step):
        return False
    settings = student_settings()
    teacher = session.load_teacher()
    space = session.checked_space(teacher)
    shape = session.load_shape(space)
    start = session.load_start(teacher, space, shape)
    begin(session, step)
    with session.strategy.scope():
        taught_by = logits_of(teacher, space) if kd else None
    result = train_network(
        space,
        shape,
        session.task,
        settings,
        strategy=session.strategy,
        teacher=taught_by,
        start=start,
        callbacks=session.callbacks("student"),
        checkpoint_dir=step.checkpoints,
        verbose=session.verbose,
    )
    write_model(session.run.student_model, result.model)
    write_json(session.run.metrics("student"), result.metrics)
    step.finish()
    return True


if __name__ == "__main__":
    run(main)
