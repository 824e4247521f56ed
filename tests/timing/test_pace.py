from unittest import mock

import pytest

from tas_tf.space.shape import Shape
from tas_tf.timing import pace as pace_module
from tas_tf.timing.pace import Pace, measure_pace
from tas_tf.timing.plan import epochs_within
from tas_tf.training.checkpoint import Checkpoints
from tas_tf.training.network import logits_of
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_space, tiny_task


@pytest.mark.slow
def test_steps_and_the_rest():
    space, task = tiny_space(), tiny_task()
    settings = TrainSettings(batch_size=32)
    held_out = task.held_out(0.8, 64)
    teacher = logits_of(tiny_network(), space)
    options = {"strategy": make_strategy("one_device"), "scored_on": held_out, "teacher": teacher}
    pace = measure_pace(space, Shape.full(space), task, settings, **options)
    assert pace.teach > 0
    # Tracing takes longer than a step of a tiny network, on any machine.
    assert 0 < pace.step < pace.overhead
    assert 0 <= pace.again < pace.overhead
    # Each epoch writes a dozen files of a network whose step takes a few milliseconds.
    assert pace.epoch_overhead > 0


def test_epochs_are_timed_with_a_real_saving():
    """A disk on which each checkpoint takes a fixed time makes an epoch that much longer, whatever the machine does."""
    space, task = tiny_space(), tiny_task()
    options = {"strategy": make_strategy("one_device"), "scored_on": task.held_out(0.8, 64)}
    clock, save = Clock(), Checkpoints.save

    def slow(checkpoints, progress):
        save(checkpoints, progress)
        clock.now += 7.0

    with mock.patch.object(Checkpoints, "save", slow), mock.patch.object(pace_module.time, "monotonic", clock):
        settings = TrainSettings(batch_size=32)
        saved = measure_pace(space, Shape.full(space), task, settings, **options)
        unsaved = measure_pace(space, Shape.full(space), task, settings, saves=False, **options)
    assert saved.epoch_overhead == pytest.approx(7.0, abs=0.1)
    assert unsaved.epoch_overhead < 0.1
    assert saved.step < 0.1


def test_the_seconds_of_epochs_scale_with_those_of_laps():
    # Two laps of one epoch each: 2 + 2 * 10 * 1 + 2 * 4 = 30 s expected, 60 s taken.
    laps = [{"proposal": "late", "round": number, "steps": 10, "seconds": 30.0} for number in (1, 2)]
    pace = Pace(1.0, 2.0, epoch_overhead=4.0).after_race(laps, "late", kept_steps=99)
    assert pace == Pace(2.0, 4.0, epoch_overhead=8.0)
    # 3 epochs of 5 steps: 4 + 15 * 2 + 3 * 8.
    assert pace.seconds(1, 1, 15, epochs=3) == 58
    assert epochs_within(58, pace, 5) == 3
    assert epochs_within(57, pace, 5) == 2


class Clock:
    """A clock that hardly moves by itself."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-4
        return self.now


def test_the_pace_after_a_race_is_the_winners():
    laps = [
        {"proposal": "uniform", "round": 1, "steps": 10, "seconds": 20.0},
        {"proposal": "late", "round": 1, "steps": 10, "seconds": 99.0},
        {"proposal": "uniform", "round": 2, "steps": 20, "seconds": 40.0},
    ]
    pace = Pace(1.0, 0.0, teach=1.0)
    assert pace.after_race(laps, "uniform", kept_steps=30) == Pace(2.0, 0.0, teach=2.0)
    # A longer race asks in every step, so that its seconds are the teacher's as well.
    assert pace.after_race(laps, "uniform", kept_steps=29) == pace
    assert pace.after_race([], "uniform", kept_steps=0) == pace
