"""A time instead of epochs: the plan, the account of what was used, and going on after an interruption."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest

from tas_tf.files import read_json, write_json
from tas_tf.pipeline import timing
from tas_tf.pipeline.training import StudentStep
from tas_tf.timing.pace import Pace
from trainers import distill, pipeline, search, teacher

FLAGS = [
    *("--train_limit=200", "--preprocess=standardise", "--batch_size=32"),
    *("--time=5m", "--progress=none", "--test_limit=64", "--formats=fp32", "--latency_rounds=2"),
]


@pytest.fixture(autouse=True)
def steady():
    """A machine of known speed: plans don't depend on how busy this one is."""
    with mock.patch.object(timing, "measure_pace", return_value=Pace(0.1, 5.0, 1.0)):
        yield


@pytest.fixture(scope="module")
def interrupted(command, tmp_path_factory, trained_tiny) -> Path:
    """A run that was interrupted when its race was over."""
    run = tmp_path_factory.mktemp("runs") / "run"
    with (
        mock.patch.object(timing, "measure_pace", return_value=Pace(0.1, 5.0, 1.0)),
        mock.patch.object(StudentStep, "work", side_effect=KeyboardInterrupt),
    ):
        outcome = command(pipeline, f"--run_dir={run}", f"--model={trained_tiny}", *FLAGS)
    assert outcome.code == 130, outcome.err
    assert "Plan for 5m: race of " in outcome.out
    assert " of 5m left, epochs to train: " in outcome.out
    return run


def test_the_plan_fits_and_is_kept(interrupted):
    plan = read_json(interrupted / "plan.json")
    assert plan["seconds"] == 300
    assert plan["race_seconds"] + plan["student_seconds"] + plan["export_seconds"] <= 300
    assert len(read_json(interrupted / "search" / "metrics.json")["proposals"]) in (
        plan["proposals"],
        1 + plan["proposals"],
    )
    assert plan["used"] > 0


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_is_left(command, interrupted, trained_tiny):
    # A student of one epoch; the time for more is used up.
    before = {**read_json(interrupted / "plan.json"), "used": 299.0, "final_epochs": {}}
    write_json(interrupted / "plan.json", before)
    outcome = command(pipeline, f"--run_dir={interrupted}", f"--model={trained_tiny}", *FLAGS)
    assert outcome.code == 0, outcome.err
    assert "Plan for 5m, 4 min 59 s of it used: race of " in outcome.out
    assert "of 5m left, epochs to train: 1." in outcome.out
    plan, student = (read_json(interrupted / name) for name in ("plan.json", "student/metrics.json"))
    assert plan["final_epochs"] == {"macs:0.5": student["epochs"]} == {"macs:0.5": 1}
    assert plan["used"] > 299
    again = command(pipeline, f"--run_dir={interrupted}", f"--model={trained_tiny}", *FLAGS)
    assert again.out.count("up to date") >= 3
    # Made again, the run has all of its time.
    anew = command(pipeline, f"--run_dir={interrupted}", f"--model={trained_tiny}", "--overwrite", "--dry_run", *FLAGS)
    assert "Plan for 5m: race of " in anew.out
    # Other commands find the same settings.
    for one in (search, distill):
        assert "up to date" in command(one, f"--run_dir={interrupted}", f"--model={trained_tiny}", *FLAGS).out


def test_another_time_is_refused_and_leaves_the_plan(command, interrupted, trained_tiny):
    before = read_json(interrupted / "plan.json")
    flags = [flag for flag in FLAGS if not flag.startswith("--time")]
    outcome = command(pipeline, f"--run_dir={interrupted}", f"--model={trained_tiny}", "--time=30m", *flags)
    assert outcome.code == 1
    assert "made from other settings" in outcome.err
    assert read_json(interrupted / "plan.json") == before


def test_what_the_time_decided_is_not_named_beside_what_the_user_changed(command, interrupted, trained_tiny):
    flags = [flag for flag in FLAGS if not flag.startswith(("--time", "--budget"))]
    places = [f"--run_dir={interrupted}", f"--model={trained_tiny}"]
    other = command(search, *places, "--budget=macs:0.6", *flags)
    assert other.code == 1
    assert "budget: was " in other.err
    assert "proposals: was " not in other.err
    assert "epochs: was " not in other.err


def test_the_flagfile_leaves_out_what_the_time_decides(interrupted):
    text = (interrupted / "flags.cfg").read_text()
    assert "--time=5m" in text
    for name in ("proposals", "student_epochs", "teacher_epochs", "recipe"):
        assert f"--{name}=" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_a_time_for_networks_that_only_lose_blocks(command, tmp_path, trained_tiny):
    """Uniform widths aren't among the choices."""
    flags = ["--axes=depth", "--budget=macs:0.9", "--dry_run", *FLAGS]
    outcome = command(pipeline, f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", *flags)
    assert "Plan for 5m: " in outcome.out, outcome


@pytest.mark.slow
def test_a_trained_teacher_stays_whatever_the_time(command, tmp_path):
    """`plan.json` may be lost or made anew; the teacher's epochs are those that it was trained for."""
    run, data = f"--run_dir={tmp_path}", [flag for flag in FLAGS if not flag.startswith("--time")]
    flags = [run, "--model=resnet8", *data]
    assert command(teacher, *flags, "--teacher_epochs=3", "--teacher_warmup=0", "--lr=0.05").code == 0
    outcome = command(pipeline, *flags, "--lr=0.05", "--time=5m", "--teacher_warmup=0", "--dry_run")
    assert outcome.code == 1
    assert "`--time` decides `--teacher_warmup`" in outcome.err
    outcome = command(pipeline, *flags, "--lr=0.05", "--time=5m", "--overwrite", "--dry_run")
    assert outcome.code == 0, outcome.err
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("│ teacher")]
    assert "up to date" in row


def test_other_commands_need_a_plan(command, tmp_path, trained_tiny):
    outcome = command(search, f"--run_dir={tmp_path}", f"--model={trained_tiny}", *FLAGS)
    assert outcome.code == 1
    assert "`--time` plans the whole pipeline" in outcome.err
    # An empty text takes a time back.
    outcome = command(search, f"--run_dir={tmp_path}", f"--model={trained_tiny}", *FLAGS, "--time=")
    assert "there is no teacher" in outcome.err


@pytest.mark.usefixtures("untimed")
def test_a_dry_run_says_the_plan_and_writes_nothing(command, tmp_path, trained_tiny):
    outcome = command(pipeline, f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", "--dry_run", *FLAGS)
    assert outcome.code == 0, outcome.err
    assert "Plan for 5m: race of " in outcome.out
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untimed")
def test_brief_trainings_of_random_shapes_are_planned(command, tmp_path, trained_tiny):
    flags = [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", "--dry_run", *FLAGS, "--rivals=random"]
    pace = Pace(0.1, 5.0, 1.0, epoch_overhead=0.5)
    with mock.patch.object(timing, "measure_pace", return_value=pace):
        without = command(pipeline, *flags).out
        outcome = command(pipeline, *flags, "--random_shapes=4", "--random_epochs=10").out
    # 4 shapes: 5 s each, and 10 epochs of 3 steps of 0.1 s and 0.5 s besides, and however long it takes to draw them.
    seconds = int(re.search(r"brief trainings of random shapes (\d+) s", outcome).group(1))
    assert 4 * (5 + 10 * (3 * 0.1 + 0.5)) <= seconds < 60
    row = re.search(r"│ shapes of rival random +│ runs +│ +40 │ +120 │ +(\d+) s │", outcome)
    assert int(row.group(1)) == seconds
    assert "brief trainings" not in without
    assert "shapes of rival" not in without
    # What they take is taken from the trainings.
    counts = [int(re.search(r"\((\d+) epochs\)", text).group(1)) for text in (without, outcome)]
    assert counts[0] > counts[1]


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_a_teacher_that_has_to_be_trained_gets_its_share(command, tmp_path):
    flags = [*FLAGS, "--model=resnet8", "--dry_run"]
    outcome = command(pipeline, f"--run_dir={tmp_path / 'run'}", *flags)
    assert "Plan for 5m: teacher 1 min" in outcome.out, outcome


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--time=30s"], "`--time` isn't enough. Expected at least "),
        # 9 shapes: 5 s each, and 100 epochs of 3 steps of 0.1 s: 315 s.
        (
            ["--rivals=random", "--random_shapes=9", "--random_epochs=100"],
            "for one shape and one epoch, and 5 min ",
        ),
        (["--time=soon"], "`--time` must be a duration, such as 20m, 2h or 1h30m. Received: 'soon'."),
        (["--recipe=paper"], "`--time` decides `--recipe`. Leave out one of the two."),
        (
            ["--search_epochs=3"],
            "`--time` plans a race and what follows; `--search_epochs` chooses a differentiable search instead. Leave "
            "out `--time`, or `--search_epochs`.",
        ),
        (
            ["--flagfile=flags/fashion_mnist.cfg", "--dataset=digits"],
            "Leave out `--time`, or `--search_epochs`.",
        ),
        (["--shape=shape.json"], "`--time` plans a race and what follows. Leave out `--time`, or `--shape`."),
        (["--searched=2"], "`--time` doesn't plan a differentiable search."),
        (["--student_epochs=3"], "`--time` decides `--student_epochs`."),
        (["--proposals", "3"], "`--time` decides `--proposals`."),
    ],
)
def test_mistakes(command, tmp_path, trained_tiny, flags, message):
    outcome = command(pipeline, f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", *FLAGS, *flags)
    assert outcome.code == 1
    assert message in outcome.err
    assert not (tmp_path / "run").exists()
