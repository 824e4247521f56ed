"""Measures how long the steps of a student's training take on this machine."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf.data.training_data import TrainingData
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.answers import Answers
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import Trainee
from tas_tf.training.settings import TrainSettings

_FEW, _SOME, _MANY = 4, 12, 60
# Epochs of one step each.
_EPOCHS = 5
# How often each is timed at most, and seconds for the longer trainings among them: on a busy machine, a single timing
# says little.
_ROUNDS, _SECONDS = 5, 1.0


@dataclass(frozen=True)
class Pace:
    """How long parts of a student's training take, in seconds.

    Attributes:
        step: A training step of the student, whose teacher has been asked before.
        overhead: What a training takes besides its steps: building, tracing, scoring.
        again: The same if a network is trained that has been trained before: scoring alone.
        teach: The teacher's pass over a batch; 0 without a teacher.
        epoch_overhead: What each epoch takes besides its steps: saving, logs, reading the images anew.
    """

    step: float
    overhead: float
    again: float = 0.0
    teach: float = 0.0
    epoch_overhead: float = 0.0

    def seconds(self, trainings: int, shapes: int, steps: int, asked: int = 0, *, epochs: int | None = None) -> float:
        """Duration of several trainings.

        Args:
            trainings: Number of trainings.
            shapes: Number of shapes among them.
            steps: Steps of all of them.
            asked: Batches that the teacher is asked about.
            epochs: Epochs of all of them; by default, one for each training.
        """
        starts = shapes * self.overhead + max(0, trainings - shapes) * self.again
        epochs = trainings if epochs is None else epochs
        return starts + steps * self.step + asked * self.teach + epochs * self.epoch_overhead

    def adjusted(self, trainings: Iterable[tuple[int, float]], *, asks: bool = False) -> Pace:
        """The pace that trainings of one shape had: all parts are longer or shorter by the same factor.

        Args:
            trainings: Steps and seconds of each, one after another, of one epoch. Without any, the pace stays.
            asks: Whether the teacher was asked in each step, so that the seconds are its own too.

        >>> Pace(1.0, 10.0, 2.0).adjusted([(20, 60.0), (20, 44.0)])
        Pace(step=2.0, overhead=20.0, again=4.0, teach=0.0, epoch_overhead=0.0)
        >>> Pace(1.0, 10.0, teach=3.0).adjusted([(20, 90.0)], asks=True)
        Pace(step=1.0, overhead=10.0, again=0.0, teach=3.0, epoch_overhead=0.0)
        >>> Pace(1.0, 10.0, epoch_overhead=5.0).adjusted([(20, 70.0)]).epoch_overhead
        10.0
        """
        done = list(trainings)
        if not done:
            return self
        steps = sum(count for count, _ in done)
        expected = self.seconds(len(done), 1, steps, asked=steps if asks else 0)
        factor = sum(seconds for _, seconds in done) / expected
        return Pace(*(factor * part for part in vars(self).values()))

    def after_race(self, laps: Sequence[Mapping[str, Any]], winner: str, *, kept_steps: int) -> Pace:
        """The pace that the winner of a race had in its laps.

        Args:
            laps: All laps, each with `proposal`, `round`, `steps` and `seconds`.
            winner: Name of the winning proposal.
            kept_steps: Steps for which the teacher's logits can be kept; in a longer race, every step asks.
        """
        rounds = {lap["round"]: lap["steps"] for lap in laps}
        own = [(lap["steps"], lap["seconds"]) for lap in laps if lap["proposal"] == winner]
        return self.adjusted(own, asks=sum(rounds.values()) > kept_steps)


def measure_pace(
    space: SearchSpace,
    shape: Shape,
    data: TrainingData,
    settings: TrainSettings,
    *,
    strategy: tf.distribute.Strategy,
    scored_on: tf.data.Dataset,
    teacher: keras.Model | None = None,
    saves: bool = True,
) -> Pace:
    """Trains a network of a shape several times for some steps and takes the time: medians of pairs of trainings.

    Args:
        space: Search space of the unpruned network.
        shape: Shape whose training to time.
        data: Training images.
        settings: Settings of the training.
        strategy: Distribution strategy.
        scored_on: Images to score.
        teacher: Network ending in logits, made in the strategy's scope, if students learn from one.
        saves: Whether the training saves checkpoints and writes logs after each epoch; here, to a temporary folder.
    """
    plain, per_epoch = data.training(settings.batch_size)
    dataset, teach, trainee = plain, 0.0, None
    if teacher is not None:
        answers = Answers(teacher, strategy)

        def ask(count: int) -> None:
            answers.to(functools.partial(plain, 0), count)(0)

        ask(1)  # traces
        teach = _difference(ask, _FEW, _SOME)
        logits = tf.zeros([settings.batch_size, *teacher.outputs[0].shape[1:]])

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            return plain(first_epoch, first_step).map(lambda images, labels: (images, labels, logits))

    def build() -> None:
        nonlocal trainee
        trainee = Trainee(space, shape, settings, data.objective, strategy=strategy, teacher=teacher)

    def train(steps: int) -> None:
        # Random weights may diverge, unless the rate is 0.
        trainee.train(dataset, lr=0.0, epochs=1, steps_per_epoch=steps, verbose=0)

    def train_epochs(count: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            writes = {"saving": Saving(folder), "callbacks": [TensorBoardScalars(folder)]} if saves else {}
            trainee.train(one_step, lr=0.0, epochs=count, steps_per_epoch=1, verbose=0, **writes)

    # Images that end with an epoch are read from their start again in the next one.
    ends = int(plain(0).cardinality()) == per_epoch

    def one_step(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
        batches = dataset(first_epoch, first_step)
        return batches.take(1) if ends else batches

    def score() -> None:
        trainee.settle(data)
        trainee.score(scored_on)

    first = _seconds(build) + _seconds(train, _FEW) + _seconds(score)
    few = _seconds(train, _FEW)
    step = _difference(train, _FEW, min(_MANY, max(_SOME, int(_SECONDS * _FEW / few))))
    overhead, again = max(0.0, first - _FEW * step), max(0.0, few - _FEW * step) + _seconds(score)
    return Pace(step, overhead, again, teach, max(0.0, _difference(train_epochs, 1, _EPOCHS) - step))


def _difference(run: Callable[[int], None], few: int, many: int) -> float:
    """Seconds of one more step or epoch, whatever else a run takes: the median of several pairs of runs."""
    pairs: list[tuple[float, float]] = []
    # Slow steps are timed less often: they are averages themselves.
    while not pairs or (len(pairs) < _ROUNDS and sum(map(sum, pairs)) < _ROUNDS * _SECONDS):
        pairs.append((_seconds(run, few), _seconds(run, many)))
    # On a busy machine, few steps may take longer than many.
    return statistics.median(
        (longer - shorter) / (many - few) if longer > shorter else longer / many for shorter, longer in pairs
    )


def _seconds(function: Callable[..., None], *arguments: Any) -> float:
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started
