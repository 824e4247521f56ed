"""Trains the unpruned network, the teacher, or takes a trained one.

Examples:
    python -m trainers.teacher --flagfile=flags/cifar100.cfg
    python -m trainers.teacher --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --image_size=96
"""

from __future__ import annotations

from rich.console import Console

from tas_tf.classifier import TrainSettings, check_above_chance, check_fits, logits_of, network_metrics, train_network
from tas_tf.shape import Shape
from tas_tf.training import evaluate, read_json, write_json, write_model
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.steps import teacher_step


def main() -> None:
    """Makes the teacher of the run that the flags name."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["teacher"])
        return
    run_teacher(session)
    metrics = read_json(session.run.metrics("teacher"))
    Console().print(
        f"{session.run.teacher_model}: test accuracy {metrics['accuracy']:.4f}, {metrics['macs']:,} MACs. "
        "Next: python -m trainers.search with the same flags.",
        highlight=False,
        soft_wrap=True,
    )


def run_teacher(session: Session) -> bool:
    """Makes the teacher unless it is there; whether anything was done."""
    step = teacher_step(session)
    if not step.begin(overwrite=options.OVERWRITE.value):
        return False
    session.write_flags()
    model = session.build_network()
    space = session.space_of(model)
    check_fits(model, space, session.task)
    if session.model_file:
        metrics = {
            **network_metrics(space, Shape.full(space), evaluate(logits_of(model, space), session.task.test())),
            "taken_from": str(session.model_file),
        }
    else:
        result = train_network(
            space,
            Shape.full(space),
            session.task,
            teacher_settings(),
            strategy=session.strategy,
            callbacks=session.callbacks("teacher"),
            checkpoint_dir=step.checkpoints,
            verbose=session.verbose,
        )
        model, metrics = result.model, result.metrics
    check_above_chance(metrics["accuracy"], session.task)
    write_model(session.run.teacher_model, model)
    write_json(session.run.metrics("teacher"), metrics)
    step.finish()
    return True


def teacher_settings() -> TrainSettings:
    """The teacher's settings from the flags."""
    return TrainSettings(
        epochs=options.TEACHER_EPOCHS.value,
        warmup_epochs=options.TEACHER_WARMUP.value,
        batch_size=options.BATCH_SIZE.value,
        lr=options.LEARNING_RATE.value if options.TEACHER_LR.value is None else options.TEACHER_LR.value,
        momentum=options.MOMENTUM.value,
        l2=options.L2.value,
        seed=options.SEED.value,
    )


if __name__ == "__main__":
    run(main)
