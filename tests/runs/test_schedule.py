from dataclasses import replace

import pytest

from tas_tf.cost.budget import Budget
from tas_tf.files import write_json
from tas_tf.runs.config import NetworkSettings, RunConfig
from tas_tf.runs.schedule import Schedule, load_schedule, save_schedule
from tas_tf.training.settings import TrainSettings
from tests.digits import tiny_task

SCHEDULE = Schedule(
    time="20m",
    seconds=1200.0,
    used=100.0,
    proposals=4,
    epochs=50,
    teacher_epochs=9,
    teacher_warmup=5,
    students=1.0,
    steps_per_epoch=10,
    step=0.5,
    overhead=20.0,
    again=4.0,
    teacher_seconds=90.0,
    race_seconds=200.0,
    student_seconds=300.0,
    export_seconds=40.0,
)


@pytest.fixture
def config(tmp_path) -> RunConfig:
    network, student = NetworkSettings(model="resnet8"), TrainSettings(batch_size=32)
    return RunConfig(network=network, student=student, run_dir=str(tmp_path / "run"), time="20m")


def raced(config: RunConfig, *seconds: float) -> RunConfig:
    """The run with a race in which the winner took these seconds for laps of ten steps each."""
    laps = [{"proposal": "uniform", "round": 1, "steps": 10, "seconds": each} for each in seconds]
    other = {"proposal": "early", "round": 1, "steps": 10, "seconds": 500.0}
    write_json(config.run.metrics("search"), {"proposal": "uniform", "laps": [other, *laps]})
    return config


def test_it_counts_only_for_the_time_it_was_made_for(config):
    assert load_schedule(config) is None
    save_schedule(config, SCHEDULE)
    assert load_schedule(config) == SCHEDULE
    assert load_schedule(replace(config, time="30m")) is None
    assert load_schedule(replace(config, time=None)) is None
    assert load_schedule(config.rival("uniform")) == SCHEDULE


def test_settings_follow_it(config):
    applied = SCHEDULE.applied(config)
    assert applied.race.proposals == 4
    assert (applied.student.all_epochs, applied.student.warmup_epochs) == (50, 0)
    assert (applied.teacher.all_epochs, applied.teacher.warmup_epochs) == (9, 5)
    assert replace(SCHEDULE, teacher_epochs=3, teacher_warmup=1).applied(config).teacher.all_epochs == 3
    assert replace(SCHEDULE, teacher_epochs=0).applied(config).teacher == config.teacher


def test_the_last_training_takes_what_is_left(config):
    raced(config)
    decided = replace(SCHEDULE, students=2.0).decided(config, tiny_task())
    # (1200 - 100 - 40) / 2 students - 20 are 510 s, at 5 s an epoch.
    assert decided.final_epochs == {"macs:0.5": 102}
    assert replace(SCHEDULE, used=1300.0).decided(config, tiny_task()).final_epochs == {"macs:0.5": 1}


def test_the_winners_laps_tell_how_fast_its_steps_are(config):
    # 20 s of overhead, 4 s for the second lap, and 20 steps: 34 s as planned, 68 s in fact.
    raced(config, 41.0, 27.0)
    # 1060 s - 40 s, at 10 s an epoch.
    assert SCHEDULE.decided(config, tiny_task()).final_epochs == {"macs:0.5": 102}


def test_later_budgets_keep_their_time(config):
    config = replace(config, budgets=(Budget.parse("macs:0.5"), Budget.parse("macs:0.25")))
    first, second = map(raced, config.at_budgets())
    decided = SCHEDULE.decided(first, tiny_task())
    # 1200 - 100 - 40 - 20 - (200 + 300 + 40) s at 5 s an epoch.
    assert decided.final_epochs == {"macs:0.5": 100}
    later = replace(decided, used=900.0).decided(second, tiny_task())
    assert later.final_epochs == {"macs:0.5": 100, "macs:0.25": 48}


def test_a_teacher_takes_time_in_new_epochs_alone(config):
    raced(config)
    schedule = replace(SCHEDULE, teach=1.0)
    # 1060 s - 20 s, at 15 s an epoch with the teacher.
    assert schedule.decided(config, tiny_task()).final_epochs == {"macs:0.5": 69}
    config = replace(config, student=replace(config.student, views=8))
    # 8 epochs of 10 s more than 5 s.
    assert schedule.decided(config, tiny_task()).final_epochs == {"macs:0.5": 192}
    # One of two students learns from labels alone.
    assert replace(schedule, students=2.0).decided(config, tiny_task()).final_epochs == {"macs:0.5": 94}


def test_what_an_epoch_takes_besides_its_steps(config):
    raced(config)
    # 1060 s - 20 s, at 5 s of steps and 5 s besides.
    assert replace(SCHEDULE, epoch_overhead=5.0).decided(config, tiny_task()).final_epochs == {"macs:0.5": 104}


def test_brief_trainings_keep_their_time(config):
    schedule = replace(SCHEDULE, random_seconds=300.0)
    # 1060 s - 20 s - 300 s, at 5 s an epoch.
    assert schedule.decided(raced(config), tiny_task()).final_epochs == {"macs:0.5": 148}
    # Where steps take twice as long, so do these: 1060 s - 40 s - 600 s, at 10 s an epoch.
    assert schedule.decided(raced(config, 41.0, 27.0), tiny_task()).final_epochs == {"macs:0.5": 42}
