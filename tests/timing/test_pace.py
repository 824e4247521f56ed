import pytest

from tas_tf.space.shape import Shape
from tas_tf.timing.pace import Pace, measure_pace
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
