"""What `--dry_run` says: which steps would run, what they cost, and about how long they take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tas_tf.baselines.rivals import RIVALS
from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.runs.run import Step
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.training.distill import classifier
from tas_tf.training.optimizers import sgd
from trainers import options
from trainers.quantise import TrainedFor8Bits, networks_of
from trainers.session import Session
from trainers.settings import qat_settings, search_settings, student_settings, teacher_settings
from trainers.steps import search_step, student_step, teacher_step

PIPED_WIDTH = 120  # of a table that goes to a file

#: Steps of the unpruned network that an iteration takes: measured on residual networks, see benchmarks/search_step.py.
_SEARCH_ITERATION = 2.0
#: What the teacher's forward pass adds to a step of its student.
_TEACHER_PASS = 0.35
_TIMED_STEPS = 3
_FRESH = "up to date"
_REFUSED = "refused: see --overwrite"
_QAT = "qat "


def show_plan(session: Session, steps: Sequence[str]) -> None:
    """Prints what the steps would do; writes nothing to the run folder.

    Args:
        session: The run.
        steps: Out of `teacher`, `search`, `student`, `rival NAME`, `qat NAME`, the last three with ` at BUDGET` behind
            them for further budgets.

    Raises:
        UserError: What the steps themselves would refuse; of a result from other settings once the plan is shown.
    """
    model = session.unpruned_network()
    space = session.checked_space(model)
    full = CostModel(space)
    runs = {str(one.budget): one for one in session.at_budgets()}
    limits = {budget: one.prepare(space) for budget, one in runs.items()}
    shares = {budget: limit / cost.full for budget, (cost, limit) in limits.items()}
    if options.SHAPE.value:
        shares[str(session.budget)] = full(session.load_shape(space)) / full.full
    plain = _seconds_of_a_step(space, session)
    images = len(session.task.indices)
    table = Table(title=f"{space.graph.network} on {session.task.source.name}, {images:,} training images")
    for column in ("step", "state", "epochs", "iterations", "estimated time"):
        table.add_column(column, justify="left" if column in ("step", "state") else "right")
    refused = []
    for step in steps:
        name, _, budget = step.partition(" at ")
        one = runs[budget or str(session.budget)]
        epochs, per_epoch, relative = _effort(name, one, shares[str(one.budget)])
        state = _state(name, one)
        if step == "teacher" and session.model_file and state == "runs":
            state, epochs = "is taken over", 0
        seconds = 0.0 if state == _FRESH else epochs * per_epoch * plain * relative
        table.add_row(step, state, str(epochs), f"{epochs * per_epoch:,}", _duration(seconds))
        refused += [step] if state == _REFUSED else []
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    budgets = ", ".join(f"{limit:,} {cost.kind}" for cost, limit in limits.values())
    console.print(
        f"Unpruned: {full.full:,} MACs. Budget: {budgets}. A plain step at batch "
        f"{options.BATCH_SIZE.value} took {1000 * plain:.0f} ms here, with a peak memory of {peak:.0f} MB; a search "
        "takes up to twice as much. Not counted: starting each step (half a minute and more for deep networks), and "
        "writing, checking and timing files.",
        highlight=False,
        soft_wrap=True,
    )
    if refused:
        raise UserError(
            f"The run would stop at `{refused[0]}`, whose result was made from other settings. Give --overwrite to "
            "make it again, or another --run_dir."
        )


def _effort(step: str, session: Session, share: float) -> tuple[int, int, float]:
    """Epochs, iterations of each, and what one takes, in training steps of the unpruned network."""
    if step == "search":
        settings = search_settings()
        _, per_epoch = session.task.searching(settings.batch_size, settings.split_share)
        return settings.epochs, per_epoch, _SEARCH_ITERATION
    if step.startswith(_QAT):
        settings = qat_settings()
        _, per_epoch = session.task.training(settings.batch_size)
        network = _network(step, session)
        relative = (1.0 if network.unpruned else share) + (_TEACHER_PASS if network.kd else 0.0)
        return settings.epochs * (2 if network.float_control else 1), per_epoch, relative
    settings = teacher_settings() if step == "teacher" else student_settings()
    _, per_epoch = session.task.training(settings.batch_size)
    epochs = settings.epochs + settings.warmup_epochs
    if step == "teacher":
        return epochs, per_epoch, 1.0
    rival = RIVALS.get(step.removeprefix("rival "))
    taught = options.KD.value and (rival is None or rival.kd)
    unpruned = rival is not None and rival.shape == "full"
    return epochs, per_epoch, (1.0 if unpruned else share) + (_TEACHER_PASS if taught else 0.0)


def _state(step: str, session: Session) -> str:
    """What a step would do, in words."""
    try:
        status = _step_of(step, session).status()
    except UserError:
        return "runs"  # it waits for what an earlier step makes
    if options.OVERWRITE.value and (status == "stale" or not session.keeps_what_is_up_to_date):
        return "runs again"
    return {"missing": "runs", "unfinished": "goes on", "fresh": _FRESH, "stale": _REFUSED}[status]


def _step_of(step: str, session: Session) -> Step:
    if step in ("teacher", "search"):
        return {"teacher": teacher_step, "search": search_step}[step](session)
    if step.startswith(_QAT):
        return _network(step, session).step
    name = step.removeprefix("rival ")
    rival = RIVALS.get(name)
    return student_step(
        session if rival is None else session.rival(name), kd=options.KD.value and (rival is None or rival.kd)
    )


def _network(step: str, session: Session) -> TrainedFor8Bits:
    name = step.removeprefix(_QAT)
    rivals = [] if name in ("student", "teacher") else [name]
    return next(one for one in networks_of(session, rivals) if one.name == name)


def _seconds_of_a_step(space: SearchSpace, session: Session) -> float:
    batch = options.BATCH_SIZE.value
    network = classifier(build_student(space, Shape.full(space), logits=True), sgd(options.LEARNING_RATE.value))
    images = tf.random.normal([batch, *session.task.source.image_shape])
    labels = tf.zeros([batch], tf.int64)
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
