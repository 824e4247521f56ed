"""Measures how long the steps of a student's training take on this machine."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tas_tf.data.training_data import TrainingData
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.answers import Answers
from tas_tf.training.network import Trainee
from tas_tf.training.settings import TrainSettings

_FEW, _SOME, _MANY = 4, 12, 60
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
    """

    step: float
    overhead: float
    again: float = 0.0
    teach: float = 0.0

    def seconds(self, trainings: int, shapes: int, steps: int, asked: int = 0) -> float:
        """Duration of several trainings.

        Args:
            trainings: Number of trainings.
            shapes: Number of shapes among them.
            steps: Steps of all of them.
            asked: Batches that the teacher is asked about.
        """
        starts = shapes * self.overhead + max(0, trainings - shapes) * self.again
        return starts + steps * self.step + asked * self.teach

    def adjusted(self, trainings: Iterable[tuple[int, float]], *, asks: bool = False) -> Pace:
        """The pace that trainings of one shape had: all parts are longer or shorter by the same factor.

        Args:
            trainings: Steps and seconds of each, one after another. Without any, the pace stays.
            asks: Whether the teacher was asked in each step, so that the seconds are its own too.

        >>> Pace(1.0, 10.0, 2.0).adjusted([(20, 60.0), (20, 44.0)])
        Pace(step=2.0, overhead=20.0, again=4.0, teach=0.0)
        >>> Pace(1.0, 10.0, teach=3.0).adjusted([(20, 90.0)], asks=True)
        Pace(step=1.0, overhead=10.0, again=0.0, teach=3.0)
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
    """
    plain, _ = data.training(settings.batch_size)
    dataset, teach, trainee = plain, 0.0, None
    if teacher is not None:
        answers = Answers(teacher, strategy)

        def ask(count: int) -> None:
            answers.to(functools.partial(plain, 0), count)(0)

        ask(1)  # traces
        teach = _per_step(ask, _SOME)
        logits = tf.zeros([settings.batch_size, *teacher.outputs[0].shape[1:]])

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            return plain(first_epoch, first_step).map(lambda images, labels: (images, labels, logits))

    def build() -> None:
        nonlocal trainee
        trainee = Trainee(space, shape, settings, data.objective, strategy=strategy, teacher=teacher)

    def train(steps: int) -> None:
        # Random weights may diverge, unless the rate is 0.
        trainee.train(dataset, lr=0.0, epochs=1, steps_per_epoch=steps, verbose=0)

    def score() -> None:
        trainee.settle(data)
        trainee.score(scored_on)

    first = _seconds(build) + _seconds(train, _FEW) + _seconds(score)
    few = _seconds(train, _FEW)
    step = _per_step(train, min(_MANY, max(_SOME, int(_SECONDS * _FEW / few))))
    return Pace(step, max(0.0, first - _FEW * step), max(0.0, few - _FEW * step) + _seconds(score), teach)


def _per_step(run: Callable[[int], None], count: int) -> float:
    """Seconds of a step, besides what a run takes whatever its steps: the median of several pairs of runs."""
    pairs: list[tuple[float, float]] = []
    # Slow steps are timed less often: they are averages themselves.
    while not pairs or (len(pairs) < _ROUNDS and sum(map(sum, pairs)) < _ROUNDS * _SECONDS):
        pairs.append((_seconds(run, _FEW), _seconds(run, count)))
    # On a busy machine, few steps may take longer than many.
    return statistics.median((many - few) / (count - _FEW) if many > few else many / count for few, many in pairs)


def _seconds(function: Callable[..., None], *arguments: Any) -> float:
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started
