"""Chooses how many shapes race, and how long the student is trained, so that both fit into a given time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.timing.duration import format_duration
from tas_tf.timing.pace import Pace
from tas_tf.training.settings import TrainSettings

#: Numbers of shapes in a race, and the epochs of the student's training from which so many pay.
_FIELDS = {32: 300, 16: 100, 8: 10, 4: 4, 2: 2, 1: 1}
# Time of a race before its first lap, in overheads of a training.
_BEFORE_RACE = 4.0
# Largest share of the time for a race; otherwise, fewer shapes take part.
_MOST_RACE = 0.4


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


@dataclass(frozen=True)
class Workload:
    """What has to be done in a given time.

    Attributes:
        pace: How fast students are trained.
        race: Settings of the race; the number of proposals is chosen.
        steps_per_epoch: Steps of an epoch of the student's training.
        students: Number of students to train for all epochs: one, and one for each rival.
        before_race: Seconds that a race takes before its first lap.
    """

    pace: Pace
    race: RaceSettings
    steps_per_epoch: int
    students: int = 1
    before_race: float = 0.0

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
        # Damage is measured in a supernet, whose tracing takes a few times as long as that of a network.
        return cls(pace, race, per_epoch, **{"before_race": _BEFORE_RACE * pace.overhead, **more})

    def epochs_within(self, seconds: float) -> int:
        """Epochs of the trainings after a race that fit into a time, at least 1."""
        each = seconds / self.students - self.pace.overhead
        return max(1, int(each / (self.steps_per_epoch * self.pace.step)))

    def plan(self, seconds: float) -> TimePlan:
        """Plans a race and the training of its winner into a time.

        Args:
            seconds: Time for both.

        Raises:
            UserError: The time isn't enough even for the shortest plan, which the message gives.
        """
        for proposals, epochs in _FIELDS.items():
            shortest = self._estimate(proposals, epochs)
            if sum(shortest) <= seconds:
                plan = self._longest(proposals, epochs, seconds)
                if proposals == 1 or plan.race_seconds <= _MOST_RACE * seconds:
                    return plan
        raise UserError(
            f"`time` isn't enough. Expected at least {format_duration(1 + sum(shortest))} for race and training: one "
            f"shape and one epoch. Received: {format_duration(max(0, seconds))}, without what other steps take."
        )

    def _longest(self, proposals: int, epochs: int, seconds: float) -> TimePlan:
        # The estimate grows by at least the student's own steps.
        low, high = epochs, epochs + int(seconds / (self.steps_per_epoch * self.pace.step)) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._estimate(proposals, middle)) <= seconds else (low, middle)
        return TimePlan(proposals, low, *self._estimate(proposals, low))

    def _estimate(self, proposals: int, epochs: int) -> tuple[float, float]:
        steps = epochs * self.steps_per_epoch
        rounds = Rounds.plan(replace(self.race, proposals=proposals), proposals=proposals, student_steps=steps)
        race = rounds.num_laps * self.pace.overhead + rounds.num_steps * self.pace.step
        return self.before_race + race, self.students * (self.pace.overhead + steps * self.pace.step)
