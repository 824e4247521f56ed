"""Chooses how many shapes race, and how long the student is trained, so that both fit into a given time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.timing.duration import format_duration
from tas_tf.timing.pace import Pace
from tas_tf.training.answers import kept_steps, kept_views
from tas_tf.training.settings import TrainSettings

#: Settings that a given time decides, by dotted name.
DECIDED = (
    *("race.proposals", "student.epochs", "student.warmup_epochs"),
    *("teacher.epochs", "teacher.warmup_epochs", "recipe"),
)
# Numbers of shapes in a race, and steps of its first laps from which these tell the shapes apart.
_FIELDS, _LAP = (16, 8, 4, 2), 60
#: Time of a race before its first lap, in overheads of a training.
BEFORE_RACE = 4.0
# Largest share of the time for a race; otherwise, fewer shapes take part.
_MOST_RACE = 0.5


def check_enough(least: float, given: float, also: str = "") -> None:
    """Checks a time.

    Args:
        least: Seconds that are needed.
        given: Seconds that there are.
        also: What takes time besides, in words.

    Raises:
        UserError: The time isn't enough.
    """
    if given < least:
        raise UserError(
            f"`time` isn't enough. Expected at least {format_duration(1 + least)}, for one shape and one epoch{also}. "
            f"Received: {format_duration(max(0, given))}."
        )


def epochs_within(seconds: float, pace: Pace, steps_per_epoch: int, views: int = 0) -> int:
    """Epochs of a training that fit into a time, at least 1.

    Args:
        seconds: The time.
        pace: How fast the network is trained.
        steps_per_epoch: Steps of an epoch.
        views: Epochs in which the teacher is asked; 0 for all.

    >>> epochs_within(100.0, Pace(step=0.1, overhead=10.0), steps_per_epoch=30)
    30
    >>> epochs_within(100.0, Pace(step=0.1, overhead=10.0, teach=0.2), steps_per_epoch=30, views=5)
    20
    >>> epochs_within(100.0, Pace(step=0.1, overhead=10.0, epoch_overhead=6.0), steps_per_epoch=30)
    10
    """
    left, asked = seconds - pace.overhead, steps_per_epoch * pace.teach
    epoch = pace.epoch_overhead + steps_per_epoch * pace.step
    epochs = left / (epoch + asked)
    return max(1, int(epochs if not views or epochs <= views else (left - views * asked) / epoch))


@dataclass(frozen=True)
class TimePlan:
    """What fits into a given time.

    Attributes:
        proposals: Number of shapes that enter the race.
        epochs: Epochs of the student's training.
        race_seconds: Estimated duration of the race.
        student_seconds: Estimated duration of all trainings after it.
    """

    proposals: int
    epochs: int
    race_seconds: float
    student_seconds: float

    def __str__(self) -> str:
        """What is planned, in words.

        >>> str(TimePlan(4, 20, 30.0, 90.0))
        'race of 4 shapes 30 s, training 1 min 30 s (20 epochs)'
        """
        race = f"race of {self.proposals} shapes" if self.proposals > 1 else "learning rates for one shape"
        epochs = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        return (
            f"{race} {format_duration(self.race_seconds)}, training {format_duration(self.student_seconds)} ({epochs})"
        )


@dataclass(frozen=True)
class Workload:
    """What has to be done in a given time.

    Attributes:
        pace: How fast students are trained.
        race: Settings of the race; the number of proposals is chosen.
        steps_per_epoch: Steps of an epoch of the student's training.
        students: Students to train for all epochs, one and its rivals, in trainings of the shape that was timed.
        before_race: Seconds that a race takes before its first lap, besides finding shapes.
        proposing: Seconds that it takes to find one shape: much if shapes are timed or written as files.
        taught: Students among them that learn from the teacher, each in a training of its own.
        views: Epochs of the student's training in which the teacher is asked; 0 for all.
        kept_steps: Steps of a race for which the teacher's logits can be kept, so that all shapes of a round use them.
    """

    pace: Pace
    race: RaceSettings
    steps_per_epoch: int
    students: float = 1.0
    before_race: float = 0.0
    proposing: float = 0.0
    taught: int = 1
    views: int = 0
    kept_steps: int = 0

    @classmethod
    def of(cls, pace: Pace, race: RaceSettings, data: TrainingData, training: TrainSettings, **more: Any) -> Workload:
        """What has to be done with some data.

        Args:
            pace: How fast students are trained.
            race: Settings of the race.
            data: Training images.
            training: Settings of the student's training.
            **more: Further attributes.
        """
        _, per_epoch = data.training(training.batch_size)
        more = {"views": kept_views(data, training), "kept_steps": kept_steps(data, training.batch_size), **more}
        # Damage is measured in a supernet, whose tracing takes a few times as long as that of a network.
        return cls(pace, race, per_epoch, **{"before_race": BEFORE_RACE * pace.overhead, **more})

    def plan(self, seconds: float) -> TimePlan:
        """Plans a race and the training of its winner into a time.

        Args:
            seconds: Time for both.

        Raises:
            UserError: The time isn't enough even for the shortest plan.
        """
        check_enough(self.shortest, seconds)
        plans = (self._longest(proposals, seconds) for proposals in _FIELDS)
        good = (plan for plan in plans if plan is not None and self._is_worth_it(plan, seconds))
        return next(good, None) or self._longest(1, seconds)

    @property
    def shortest(self) -> float:
        """Seconds of the shortest plan: a race of one shape, and one epoch."""
        return sum(self._estimate(1, 1))

    def _is_worth_it(self, plan: TimePlan, seconds: float) -> bool:
        return self._rounds(plan.proposals, plan.epochs).steps[0] >= _LAP and plan.race_seconds <= _MOST_RACE * seconds

    def _longest(self, proposals: int, seconds: float) -> TimePlan | None:
        """The plan of most epochs; `None` if there is no time for one."""
        if sum(self._estimate(proposals, 1)) > seconds:
            return None
        # The estimate grows by at least the student's own steps.
        low, high = 1, 2 + int(seconds / (self.steps_per_epoch * self.pace.step))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._estimate(proposals, middle)) <= seconds else (low, middle)
        return TimePlan(proposals, low, *self._estimate(proposals, low))

    def _rounds(self, proposals: int, epochs: int) -> Rounds:
        return Rounds.plan(self.race, proposals=proposals, student_steps=epochs * self.steps_per_epoch)

    def _estimate(self, proposals: int, epochs: int) -> tuple[float, float]:
        rounds, steps = self._rounds(proposals, epochs), epochs * self.steps_per_epoch
        asked = sum(rounds.steps) if sum(rounds.steps) <= self.kept_steps else rounds.num_steps
        race = self.pace.seconds(rounds.num_laps, rounds.num_shapes, rounds.num_steps, asked)
        asked = min(epochs, self.views or epochs) * self.steps_per_epoch
        before = self.before_race + rounds.num_shapes * self.proposing
        training = self.pace.seconds(1, 1, steps, epochs=epochs)
        return before + race, self.students * training + self.taught * asked * self.pace.teach
