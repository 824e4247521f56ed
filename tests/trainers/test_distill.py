"""The student made by the command: plain layers, trained with the teacher or with labels only."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from tas_tf.data.task import Task
from tas_tf.graph.graph import Graph
from tas_tf.importance.order import channel_order, reorder
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tests.commands import quiet_environment
from trainers import distill

LOAD = """
import importlib.util, json, sys
for name in ("tas_tf", "trainers", "export", "tests"):
    assert importlib.util.find_spec(name) is None, name
import keras, numpy
model = keras.models.load_model(sys.argv[1])
print(json.dumps([model.compiled, model.predict(numpy.load(sys.argv[2]), verbose=0).tolist()]))
"""


@pytest.mark.slow
def test_the_student_loads_where_the_project_is_not_installed(interrupted, tmp_path):
    path = interrupted.path / "student/model.keras"
    images, labels = Task.load("digits", train_limit=200).test_arrays()
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, path, tmp_path / "images.npy"],
        cwd=tmp_path,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled, outputs = json.loads(done.stdout)
    assert not compiled
    outputs = np.array(outputs)
    np.testing.assert_allclose(outputs.sum(-1), 1.0, rtol=1e-5)  # the original ends in softmax
    accuracy = json.loads((interrupted.path / "student/metrics.json").read_text())["accuracy"]
    assert accuracy == pytest.approx((outputs.argmax(-1) == labels).mean())


def test_the_file_holds_no_training_state(interrupted):
    with zipfile.ZipFile(interrupted.path / "student/model.keras") as archive:
        config = archive.read("config.json").decode()
        weights = len(archive.read("model.weights.h5"))
    assert not json.loads(config).get("compile_config")
    assert "tas_tf" not in config
    model = keras.models.load_model(interrupted.path / "student/model.keras")
    assert weights < 4 * model.count_params() + 100_000  # no momentum beside them


def test_without_kd_and_with_inherited_weights(command, interrupted, tmp_path, tiny_flags):
    places = [f"--teacher_from={interrupted.path}", f"--shape={interrupted.path}/search/shape.json"]
    outcome = command(
        distill, f"--run_dir={tmp_path}/run", *places, *tiny_flags, "--nokd", "--inherit=teacher", "--lr=0"
    )
    assert outcome.code == 0, outcome
    assert "test accuracy" in outcome.out
    assert "Next: python -m export.student" in outcome.out.replace("\n", " ")
    metrics = json.loads((tmp_path / "run/student/metrics.json").read_text())
    assert metrics["kd"] is False
    teacher = keras.models.load_model(interrupted.path / "teacher/model.keras")
    space = SearchSpace.from_graph(Graph.from_model(teacher))
    shape = Shape.load(interrupted.path / "search/shape.json")
    expected = build_student(space, shape)
    ranked = reorder(teacher, space, channel_order("l1", teacher, space))
    inherit_weights(expected, ranked, space, shape)
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    for ours, theirs in zip(student.trainable_weights, expected.trainable_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("untimed")
def test_dry_run_needs_no_model_flag_and_writes_nothing(command, interrupted, tmp_path, tiny_flags):
    places = [f"--teacher_from={interrupted.path}", f"--shape={interrupted.path}/search/shape.json"]
    outcome = command(distill, f"--run_dir={tmp_path}/run", *places, *tiny_flags, "--dry_run")
    assert outcome.code == 0, outcome
    assert "student" in outcome.out
    assert not (tmp_path / "run").exists()


def test_the_weights_of_the_supernet_on_request(command, interrupted, tmp_path, tiny_flags):
    places = [f"--teacher_from={interrupted.path}", f"--shape={interrupted.path}/search/shape.json"]
    outcome = command(distill, f"--run_dir={tmp_path}/run", *places, *tiny_flags, "--inherit=supernet", "--lr=0")
    assert outcome.code == 0, outcome
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    inherited = keras.models.load_model(interrupted.path / "search/from_supernet.keras")
    for ours, theirs in zip(student.trainable_weights, inherited.trainable_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    outcome = command(
        distill,
        f"--run_dir={tmp_path}/other",
        f"--teacher_from={interrupted.path}",
        f"--shape={interrupted.path}/rivals/uniform/search/shape.json",
        *tiny_flags,
        "--inherit=supernet",
    )
    assert outcome.code == 1
    assert "from_supernet.keras" in outcome.err
    assert not (tmp_path / "other").exists()


def test_what_the_search_leaves_is_as_good_as_it_says(interrupted, tiny_flags):
    """The network with the supernet's weights scores the held-out accuracy, its running statistics included."""
    metrics = json.loads((interrupted.path / "search/metrics.json").read_text())
    network = keras.models.load_model(interrupted.path / "search/from_supernet.keras")
    images, labels = zip(*Task.load("digits", train_limit=200).held_out(0.5, 64).as_numpy_iterator(), strict=True)
    predicted = network.predict(np.concatenate(images), verbose=0).argmax(-1)
    assert (predicted == np.concatenate(labels)).mean() == pytest.approx(metrics["held_out_accuracy"])
