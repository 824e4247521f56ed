"""What `--dry_run` says: which steps would run, what they cost, and about how long they take."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tas_tf.budget import Budget
from tas_tf.classifier import TrainSettings, check_fits
from tas_tf.cost import CostModel
from tas_tf.distill import classifier
from tas_tf.searching import prepare
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from tas_tf.student import build_student
from tas_tf.training import sgd
from trainers import options
from trainers.session import Session

#: Steps of the unpruned network that an iteration takes: measured on residual networks, see benchmarks/search_step.py.
_SEARCH_ITERATION = 2.0
#: What the teacher's forward pass adds to a step of its student.
_TEACHER_PASS = 0.35
_TIMED_STEPS = 3


def show_plan(session: Session, steps: Sequence[str]) -> None:
    """Prints what the steps would do; writes nothing to the run folder.

    Args:
        session: The run.
        steps: Out of `teacher`, `search`, `student`.
    """
    model = session.build_network()
    space = session.space_of(model)
    check_fits(model, space, session.task)
    budget = Budget.parse(options.BUDGET.value)
    cost, limit = prepare(space, budget)
    plain = _seconds_of_a_step(space, session)
    share = limit / cost.full if cost.kind == "macs" else 1.0
    images = len(session.task.indices)
    table = Table(title=f"{space.graph.network} on {session.task.source.name}, {images:,} training images")
    for column in ("step", "epochs", "iterations", "estimated time"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in steps:
        epochs, iterations, seconds = _effort(step, session, plain, share)
        table.add_row(step, str(epochs), f"{iterations:,}", _duration(seconds))
    console = Console()
    console.print(table)
    full = CostModel(space).full
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"Unpruned: {full:,} MACs. Budget: {limit:,} {cost.kind}. A plain step at batch {options.BATCH_SIZE.value} took "
        f"{1000 * plain:.0f} ms here, with a peak memory of {peak:.0f} MB; a search takes up to twice as much.",
        highlight=False,
        soft_wrap=True,
    )


def _effort(step: str, session: Session, plain: float, share: float) -> tuple[int, int, float]:
    batch = options.BATCH_SIZE.value
    if step == "search":
        epochs = options.SEARCH_EPOCHS.value + options.SEARCH_WARMUP.value
        _, per_epoch = session.task.searching(batch, options.SPLIT_SHARE.value)
        factor = _SEARCH_ITERATION
    else:
        _, per_epoch = session.task.training(batch)
        if step == "teacher":
            epochs, factor = options.TEACHER_EPOCHS.value + options.TEACHER_WARMUP.value, 1.0
        else:
            epochs = options.STUDENT_EPOCHS.value + options.STUDENT_WARMUP.value
            factor = share + (_TEACHER_PASS if options.KD.value else 0.0)
    return epochs, epochs * per_epoch, epochs * per_epoch * plain * factor


def _seconds_of_a_step(space: SearchSpace, session: Session) -> float:
    settings = TrainSettings(batch_size=options.BATCH_SIZE.value)
    network = classifier(build_student(space, Shape.full(space), logits=True), sgd(settings.lr))
    images = tf.random.normal([settings.batch_size, *session.task.source.image_shape])
    labels = tf.zeros([settings.batch_size], tf.int64)
    network.build(images.shape)
    step = tf.function(lambda: network.train_step((images, labels)))
    keras.tree.map_structure(lambda value: value.numpy(), step())
    started = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        keras.tree.map_structure(lambda value: value.numpy(), step())
    return (time.perf_counter() - started) / _TIMED_STEPS


def _duration(seconds: float) -> str:
    """Seconds for people.

    >>> _duration(50), _duration(4000)
    ('50 s', '1 h 07 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
