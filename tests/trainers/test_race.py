"""A race as a command: from a trained network to a student, interrupted and resumed, at several budgets."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest

from tas_tf.files import read_json, write_model
from tas_tf.training.network import Trainee
from tas_tf.zoo.loading import load_file
from tests.networks import count_macs
from trainers import distill, pipeline, search, teacher

BRIEF = [
    "--train_limit=200",
    "--preprocess=standardise",
    "--batch_size=32",
    "--student_epochs=1",
    "--lr=0.05",
    "--proposals=2",
    "--rate_factors=0.2,1",
    "--progress=none",
    "--test_limit=64",
    "--formats=fp32",
    "--latency_rounds=2",
]


@pytest.fixture(scope="module")
def raced(command, tmp_path_factory, trained_tiny) -> Path:
    """A whole run with a rival."""
    run = tmp_path_factory.mktemp("runs") / "run"
    outcome = command(pipeline, f"--run_dir={run}", f"--model={trained_tiny}", "--rivals=uniform", *BRIEF)
    assert outcome.code == 0, outcome.err
    assert "2 shapes race, in up to 3 laps of 20 steps: uniform, uniform 1." in outcome.out
    assert "lap 3 of up to 3, round 1: " in outcome.out
    return run


def without_normalisation() -> keras.Model:
    """A small network for digits, of convolutions alone."""
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(images)
    return keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def check_run(run: Path, trained_tiny: Path, share: float) -> None:
    metrics = read_json(run / "search" / "metrics.json")
    student = load_file(run / "student" / "model.keras")
    assert count_macs(student) == metrics["shape_macs"] <= share * count_macs(load_file(trained_tiny))
    assert len(metrics["laps"]) == 3
    assert metrics["proposal"] in metrics["proposals"]
    report = json.loads((run / "report.json").read_text())
    assert report["search"]["laps"] == metrics["laps"]


def test_a_student_within_the_budget_and_a_report_of_the_race(raced, trained_tiny):
    check_run(raced, trained_tiny, 0.5)


@pytest.mark.slow
def test_each_budget_has_a_race(command, raced, trained_tiny, tmp_path):
    budgets = ["--budget=macs:0.6", "--budget=macs:0.3"]
    flags = [f"--run_dir={tmp_path}", f"--teacher_from={raced}", *budgets, *BRIEF]
    assert command(pipeline, *flags).code == 0
    for folder, share in ((tmp_path, 0.6), (tmp_path / "budgets" / "macs_0.3", 0.3)):
        check_run(folder, trained_tiny, share)


def test_the_student_and_its_rivals_use_the_best_rate(raced):
    factor = read_json(raced / "search" / "metrics.json")["rate_factor"]
    assert factor in (0.2, 1.0)
    for student in (raced / "student", raced / "rivals" / "uniform" / "student"):
        assert read_json(student / "metrics.json")["lr"] == pytest.approx(0.05 * factor)
        assert read_json(student / "digest.json")["settings"]["student"]["lr"] == pytest.approx(0.05 * factor)


def test_the_student_goes_on_from_the_race_and_a_rival_from_the_teacher(raced):
    starts = {
        name: read_json(raced / name / "student" / "digest.json")["settings"]["start"]
        for name in (".", "rivals/uniform")
    }
    assert starts == {".": "race", "rivals/uniform": "teacher"}


def test_laps_are_curves_in_tensorboard(raced):
    laps = read_json(raced / "search" / "metrics.json")["laps"]
    files = {path.parent.name for path in (raced / "logs" / "search" / "race").rglob("events*")}
    assert files == {"standings"} | {
        f"{lap['proposal'].replace('/', '-').replace(' ', '_')}_rate_x{lap['rate_factor']:g}" for lap in laps
    }


@pytest.mark.slow
def test_an_interrupted_race_goes_on(command, raced, trained_tiny, tmp_path):
    flags = [f"--run_dir={tmp_path}", f"--model={trained_tiny}", *BRIEF]
    assert command(teacher, *flags).code == 0
    done, train = [], Trainee.train

    def die_in_the_third(*args, **kwargs):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    with mock.patch.object(Trainee, "train", die_in_the_third):
        assert command(search, *flags).code == 130
    outcome = command(search, *flags)
    assert outcome.code == 0, outcome.err
    assert len(done) == 3
    assert "lap 2 of up to 3, round 1 (done before): " in outcome.out
    assert outcome.out.count("(done before)") == 2
    for name in ("shape.json", "metrics.json"):
        assert (tmp_path / "search" / name).exists()
    assert not (tmp_path / "search" / "checkpoints").exists()
    one, other = (read_json(run / "search" / "metrics.json") for run in (raced, tmp_path))
    assert [lap["loss"] for lap in one["laps"]] == [lap["loss"] for lap in other["laps"]]
    weights = [load_file(run / "search" / "from_race.keras").get_weights() for run in (raced, tmp_path)]
    for wanted, found in zip(*weights, strict=True):
        np.testing.assert_array_equal(wanted, found)
    again = command(search, *flags)
    assert "is up to date" in again.out
    outcome = command(distill, *flags)
    assert outcome.code == 0, outcome.err
    assert read_json(tmp_path / "student" / "digest.json")["settings"]["start"] == "race"


@pytest.mark.slow
def test_searched_shapes_take_part(command, raced, tmp_path):
    flags = [f"--run_dir={tmp_path}", f"--teacher_from={raced}", *BRIEF]
    outcome = command(search, *flags, "--searched=2", "--search_epochs=1", "--held_out_limit=32")
    assert outcome.code == 0, outcome.err
    metrics = read_json(tmp_path / "search" / "metrics.json")
    assert {"search", "search 2", "uniform"} <= set(metrics["proposals"])


def test_a_race_needs_a_trained_teacher(command, tmp_path):
    outcome = command(search, f"--run_dir={tmp_path / 'run'}", "--model=resnet8", *BRIEF)
    assert outcome.code == 1
    path = tmp_path / "run" / "teacher" / "model.keras"
    assert outcome.err.startswith(f"error: `--run_dir`: there is no teacher, {path}. Run `python -m trainers.teacher`")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untimed")
def test_a_plan_counts_laps(command, trained_tiny, tmp_path):
    run = tmp_path / "run"
    outcome = command(pipeline, f"--run_dir={run}", f"--model={trained_tiny}", "--dry_run", *BRIEF)
    assert outcome.code == 0, outcome.err
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("│ race")]
    assert row.split("│")[3].strip() == "3"
    assert not run.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe=best"], "`--recipe` must be one of fast, balanced, paper. Received: 'best'."),
        (["--proposals=0"], "`--proposals` must be at least 1. Received: 0."),
        (["--rate_factors=0.5,-1"], "`--rate_factors` must be above 0. Received: 0.5, -1.0."),
        (["--batch_size=170"], "`--batch_size` doesn't fit the data. Expected 1 to 160"),
        (["--inherit=race", "--rivals=uniform"], "`--inherit=race` works only for the shape found."),
        (["--recipe=paper", "--inherit=race"], "`--inherit=race` has no effect with `--recipe=paper`."),
        (["--model=PLAIN", "--importance=bn_scale"], "`--importance=bn_scale` needs batch normalisation with scales."),
    ],
)
def test_mistakes_are_found_before_anything_is_written(command, trained_tiny, tmp_path, flags, message):
    plain = tmp_path / "plain.keras"
    write_model(plain, without_normalisation())
    flags = [flag.replace("PLAIN", str(plain)) for flag in flags]
    arguments = [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", *BRIEF, *flags]
    outcome = command(pipeline, *arguments)
    assert outcome.code == 1
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_epochs_of_a_search_mean_a_search(command, trained_tiny, tmp_path):
    flags = [f"--model={trained_tiny}", "--dry_run", *BRIEF]
    flags.remove("--proposals=2")
    for given, step in (
        (["--search_epochs=1"], "search"),
        ([], "race"),
        (["--recipe=paper"], "search"),
        (["--search_epochs=1", "--searched=1"], "race"),
    ):
        outcome = command(pipeline, f"--run_dir={tmp_path / step}", *flags, *given)
        assert any(line.split("│")[1].strip() == step for line in outcome.out.splitlines() if "│" in line), outcome
