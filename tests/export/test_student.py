"""`python -m export.student` in a process of its own, given a run folder alone."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from export import student
from tas_tf.data.task import Task
from tas_tf.files import write_json, write_model
from tas_tf.shape import Shape
from tas_tf.student import build_student
from tests.commands import quiet_environment, run_command
from tests.digits import tiny_network, tiny_space
from tests.networks import randomize

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run whose teacher lies elsewhere, as distillation leaves it; weights are random."""
    space = tiny_space()
    shape = Shape.random(space, 0)
    write_model(tmp_path / "other/teacher/model.keras", randomize(tiny_network()))
    small = randomize(build_student(space, shape))
    run = tmp_path / "run"
    write_model(run / "student/model.keras", small)
    write_json(run / "search/shape.json", shape.to_json())
    for folder in (run / "student", tmp_path / "other/teacher"):
        write_json(folder / "metrics.json", {"accuracy": 0.5, "loss": 1.0, "macs": 1, "params": 1})
    (run / "flags.cfg").write_text(
        f"--dataset=digits\n--train_limit=150\n--teacher_from={tmp_path}/other\n--test_limit=50\n--noflip\n--formats=fp32\n"
    )
    return run


def export(run: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "export.student", f"--run_dir={run}", *arguments],
        cwd=ROOT,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_flags_come_from_the_run(run_folder):
    done = export(run_folder)
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((run_folder / "export/metrics.json").read_text())
    assert set(metrics) == {"fp32", "teacher"}
    model = keras.models.load_model(run_folder / "student/model.keras")
    images, labels = Task.load("digits", train_limit=150).test_arrays(50)
    expected = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert metrics["fp32"]["accuracy"] == pytest.approx(expected)
    assert np.isfinite(metrics["fp32"]["latency_ms"])
    assert "Test set results" in done.stdout


def test_a_difference_beyond_tolerance_leaves_nothing(run_folder):
    outcome = run_command(student, f"--run_dir={run_folder}", "--export_tolerance=0")
    assert outcome.code == 1
    assert outcome.err.startswith("error: The ")
    assert "differs from its Keras model" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (run_folder / "export/metrics.json").exists()
    assert not list(run_folder.rglob("*.tflite"))
    assert not list(run_folder.rglob(".partial*"))
