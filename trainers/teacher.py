"""Trains the unpruned network, the teacher, or takes a trained one.

Examples:
    python -m trainers.teacher --flagfile=flags/cifar100.cfg
    python -m trainers.teacher --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --image_size=96
"""

from __future__ import annotations

from typing import Any

import keras
from rich.console import Console

from tas_tf.files import read_json, write_json, write_model
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import check_above_chance, logits_of, network_metrics, train_network
from trainers import options
from trainers.command import run
from trainers.plan import show_plan
from trainers.session import Session
from trainers.settings import teacher_settings
from trainers.steps import begin, is_up_to_date, teacher_step


def main() -> None:
    """Makes the teacher of the run that the flags name."""
    session = Session()
    if options.DRY_RUN.value:
        show_plan(session, ["teacher"])
        return
    state = "" if run_teacher(session) else " is up to date"
    metrics = read_json(session.run.metrics("teacher"))
    Console().print(
        f"{session.run.teacher_model}{state}: test accuracy {metrics['accuracy']:.4f}, {metrics['macs']:,} MACs. "
        "Next: python -m trainers.search with the same flags.",
        highlight=False,
        soft_wrap=True,
    )


def run_teacher(session: Session) -> bool:
    """Makes the teacher unless it is there; whether anything was done."""
    step = teacher_step(session)
    if is_up_to_date(session, step):
        return False
    model = session.network
    space = session.checked_space(model)
    if session.model_file:
        metrics = {**_test(model, space, session), "taken_from": str(session.model_file)}
        check_above_chance(metrics["accuracy"], session.task)
        begin(session, step)
        Console().print(
            f"Taken over from {session.model_file}: test accuracy {metrics['accuracy']:.4f} with "
            f"--preprocess={options.PREPROCESS.value}. If you know it to be better, it was trained with another.",
            highlight=False,
            soft_wrap=True,
        )
    else:
        settings = teacher_settings()
        begin(session, step)
        result = train_network(
            space,
            Shape.full(space),
            session.task,
            settings,
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


def _test(model: keras.Model, space: SearchSpace, session: Session) -> dict[str, Any]:
    return network_metrics(space, Shape.full(space), evaluate(logits_of(model, space), session.task.test()))


if __name__ == "__main__":
    run(main)
