"""How a run uses the time that the user gave; kept in its folder, so that a resumed run goes on with what is left."""

from __future__ import annotations

import contextlib
import typing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_result
from tas_tf.timing.pace import Pace
from tas_tf.timing.plan import epochs_within
from tas_tf.training.answers import kept_steps, kept_views


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a run's time is used.

    Attributes:
        time: The time as the user gave it.
        seconds: The same in seconds.
        used: Seconds used so far.
        proposals: Number of shapes in each race.
        epochs: Epochs of the students' trainings, as planned before the race.
        teacher_epochs: Epochs of the teacher's training, which may be done; 0 if the teacher isn't trained here.
        teacher_warmup: Epochs of warm-up among them.
        students: Students that are trained after each race, in trainings of the shape found.
        steps_per_epoch: Steps of an epoch of a student's training.
        step: Seconds of a training step of a student.
        overhead: Seconds that a training takes besides its steps.
        again: The same for a network that has been trained before.
        teach: Seconds of the teacher's pass over a batch.
        epoch_overhead: Seconds that an epoch takes besides its steps.
        taught: Students among those trained that learn from the teacher.
        teacher_seconds: Estimated duration of the teacher's training.
        race_seconds: Estimated duration of each race.
        student_seconds: Estimated duration of all trainings after a race.
        random_seconds: Estimated duration of brief trainings that choose among random shapes, for each budget.
        export_seconds: Estimated duration of export and report, for each budget.
        final_epochs: Epochs of the students' trainings by budget, decided when the race was over.
    """

    time: str
    seconds: float
    used: float = 0.0
    proposals: int
    epochs: int
    teacher_epochs: int
    teacher_warmup: int
    students: float
    steps_per_epoch: int
    step: float
    overhead: float
    again: float
    teach: float = 0.0
    epoch_overhead: float = 0.0
    taught: int = 1
    teacher_seconds: float
    race_seconds: float
    student_seconds: float
    random_seconds: float = 0.0
    export_seconds: float
    final_epochs: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any, path: Path) -> Schedule:
        """The schedule that a file holds.

        Args:
            content: What the file holds.
            path: The file.

        Raises:
            UserError: The file was damaged or changed.
        """
        hints = typing.get_type_hints(cls)
        numbers = {float: (int, float), int: int, str: str}
        with contextlib.suppress(TypeError):
            schedule = cls(**content)
            values = {name: getattr(schedule, name) for name in hints}
            if all(isinstance(values[name], numbers.get(hint, dict)) for name, hint in hints.items()):
                return schedule
        raise UserError(f"{path} was damaged or changed. Remove it, and the time is planned anew.")

    def applied(self, config: RunConfig) -> RunConfig:
        """The settings of a run with the numbers of the schedule."""
        teacher = config.teacher
        if self.teacher_epochs:
            after = self.teacher_epochs - self.teacher_warmup
            teacher = replace(teacher, epochs=after, warmup_epochs=self.teacher_warmup)
        return replace(
            config,
            teacher=teacher,
            race=replace(config.race, proposals=self.proposals),
            student=replace(config.student, epochs=self.epochs, warmup_epochs=0),
        )

    def decided(self, config: RunConfig, data: TrainingData) -> Schedule:
        """The schedule with the final epochs for the budget of a run, by what is left of the time.

        The winner's laps tell more about its training than what was measured before the race.

        Args:
            config: The run, whose race is over.
            data: Its training images.
        """
        budgets = [str(budget) for budget in config.outermost.budgets]
        later = len(budgets) - 1 - budgets.index(str(config.budget))
        whole = self.race_seconds + self.student_seconds + self.random_seconds + self.export_seconds
        raced = read_result(config.run.metrics("search"))
        kept = kept_steps(data, config.student.batch_size)
        pace = Pace(self.step, self.overhead, self.again, self.teach, self.epoch_overhead)
        pace = pace.after_race(raced["laps"], raced["proposal"], kept_steps=kept)
        random = self.random_seconds * pace.step / self.step
        left = self.seconds - self.used - random - self.export_seconds - later * whole
        pace = replace(pace, teach=pace.teach * self.taught / self.students)
        views = kept_views(data, config.student)
        epochs = epochs_within(left / self.students, pace, self.steps_per_epoch, views)
        return replace(self, final_epochs={**self.final_epochs, str(config.budget): epochs})


def load_schedule(config: RunConfig) -> Schedule | None:
    """The schedule of a run for the time that the user gave, if there is one."""
    path = config.outermost.run.plan
    if config.time is None or not path.exists():
        return None
    schedule = Schedule.from_json(read_json(path), path)
    return schedule if schedule.time == config.time else None


def save_schedule(config: RunConfig, schedule: Schedule) -> None:
    """Writes the schedule of a run into its folder, which it makes if necessary."""
    config.outermost.run.prepare()
    write_json(config.outermost.run.plan, asdict(schedule))
