"""Plans against a clock that adds up what is done."""

import pytest

from tas_tf.errors import UserError
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.timing.pace import Pace
from tas_tf.timing.plan import Workload


def clock(workload: Workload, proposals: int, epochs: int) -> float:
    """Every lap and every training one by one."""
    pace, total = workload.pace, workload.before_race
    rounds = Rounds.plan(workload.race, proposals=proposals, student_steps=epochs * workload.steps_per_epoch)
    laps = [steps for entries, steps in zip(rounds.entries, rounds.steps, strict=True) for _ in range(entries)]
    laps += [rounds.steps[0]] * (rounds.num_laps - len(laps))
    total += rounds.num_shapes * (workload.proposing + pace.overhead - pace.again)
    for steps in laps:
        total += pace.again + steps * (pace.step + (0 if workload.kept_steps else pace.teach)) + pace.epoch_overhead
    total += sum(rounds.steps) * pace.teach if workload.kept_steps else 0
    for _ in range(int(workload.students)):
        total += pace.overhead
        for epoch in range(epochs):
            taught = not workload.views or epoch < workload.views
            total += workload.steps_per_epoch * (pace.step + taught * pace.teach) + pace.epoch_overhead
    return total


@pytest.mark.parametrize("seconds", [100, 300, 1200, 7200, 100_000])
@pytest.mark.parametrize("students", [1, 3])
@pytest.mark.parametrize("pace", [Pace(0.02, 5.0, 1.0, 0.03), Pace(0.5, 0.1, 0.1), Pace(0.02, 5.0, 1.0, 0.03, 0.25)])
@pytest.mark.parametrize("kept", [{}, {"views": 4, "kept_steps": 10**9}, {"proposing": 3.0}])
def test_the_longest_training_that_fits(seconds, students, pace, kept):
    workload = Workload(pace, RaceSettings(), 30, students, before_race=7.0, taught=students, **kept)
    plan = workload.plan(seconds)
    assert plan.race_seconds + plan.student_seconds == pytest.approx(clock(workload, plan.proposals, plan.epochs))
    assert clock(workload, plan.proposals, plan.epochs) <= seconds < clock(workload, plan.proposals, plan.epochs + 1)
    assert plan.proposals == 1 or plan.race_seconds <= 0.5 * seconds


def test_more_time_means_more_shapes_and_epochs():
    workload = Workload(Pace(0.05, 5.0), RaceSettings(), 100)
    plans = [workload.plan(seconds) for seconds in (60, 300, 1000, 4000, 20_000, 100_000)]
    for name in ("proposals", "epochs"):
        values = [getattr(plan, name) for plan in plans]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_laps_are_long_enough_to_tell_shapes_apart():
    """Two minutes are enough for a race where steps are short; where an epoch takes long, one epoch is enough."""
    short = Workload(Pace(0.03, 4.0, 1.0), RaceSettings(), 20, before_race=12.0)
    assert [short.plan(seconds).proposals for seconds in (60, 120)] == [1, 4]
    long = Workload(Pace(0.5, 60.0, 20.0), RaceSettings(), 5000, before_race=200.0)
    plan = long.plan(4 * 3600)
    assert plan.proposals >= 4
    assert plan.epochs < 6


def test_too_little_time():
    workload = Workload(Pace(1.0, 10.0), RaceSettings(), 100, before_race=20.0)
    shortest = clock(workload, 1, 1)
    assert shortest == workload.shortest == 20 + 10 + 2 * 20 + 10 + 100
    with pytest.raises(UserError, match=r"`time` isn't enough. Expected at least 3 min 01 s, .* Received: 2 min 59 s"):
        workload.plan(179)
    assert (workload.plan(181).proposals, workload.plan(181).epochs) == (1, 1)
