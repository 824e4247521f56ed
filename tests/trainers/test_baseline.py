"""Shapes without a search."""

import json
from unittest import mock

import keras
import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.graph.graph import Graph
from tas_tf.importance.order import channel_order, reorder
from tas_tf.pipeline import baseline_shapes
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import inherited
from tests.digits import tiny_space
from trainers import baseline, distill, report


def test_a_shape_at_the_budget_and_what_is_there_already(command, tmp_path, trained_tiny):
    cost = CostModel(tiny_space())
    arguments = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--budget=macs:0.6"]
    path = tmp_path / "run/search/shape.json"
    outcome = command(baseline, *arguments, "--kind=uniform")
    assert outcome.code == 0, outcome
    shape = Shape.load(path)
    shape.check(cost.space)
    assert 0.4 * cost.full < cost(shape) <= 0.6 * cost.full
    assert f"{cost(shape):,} macs" in outcome.out.replace("\n", " ")
    before = path.read_bytes()
    assert command(baseline, *arguments, "--kind=uniform").code == 0
    assert path.read_bytes() == before
    outcome = command(baseline, *arguments, "--kind=random")
    assert outcome.code == 1
    assert "--overwrite" in outcome.err
    assert path.read_bytes() == before
    assert command(baseline, *arguments, "--kind=random", "--overwrite").code == 0
    found = Shape.load(path)
    assert found != shape
    assert 0.55 * cost.full - 1 <= cost(found) <= 0.6 * cost.full


@pytest.mark.slow
def test_the_same_seed_gives_the_same_shape(command, tmp_path, trained_tiny):
    shapes = []
    for number, seed in enumerate((0, 0, 1)):
        arguments = [f"--run_dir={tmp_path}/{number}", f"--model={trained_tiny}", "--kind=random", f"--seed={seed}"]
        assert command(baseline, *arguments).code == 0
        shapes.append(json.loads((tmp_path / f"{number}/search/shape.json").read_text()))
    assert shapes[0] == shapes[1] != shapes[2]


def test_the_student_starts_from_the_filters_chosen(command, tmp_path, interrupted, tiny_flags):
    kind = "fpgm"
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}"]
    assert command(baseline, *places, f"--kind={kind}", "--budget=macs:0.6").code == 0
    outcome = command(distill, *places, *tiny_flags, "--lr=0")
    assert outcome.code == 0, outcome
    teacher = keras.models.load_model(interrupted.path / "teacher/model.keras")
    space = SearchSpace.from_graph(Graph.from_model(teacher))
    shape = Shape.load(tmp_path / "run/search/shape.json")
    expected = inherited(reorder(teacher, space, channel_order(kind, teacher, space)), space, shape)
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    for ours, theirs in zip(student.trainable_weights, expected.trainable_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = json.loads(command(report, f"--run_dir={tmp_path}/run", "--json").out)
    assert "trainers.baseline --kind=fpgm --flagfile=" in found["command"]
    assert (found["settings"]["train_limit"], found["settings"]["preprocess"]) == ("200", "standardise")
    # From scratch on request; that is another student.
    outcome = command(distill, *places, *tiny_flags, "--lr=0", "--inherit=none")
    assert outcome.code == 1
    assert "start: was" in outcome.err


@pytest.mark.slow
def test_a_student_from_scratch_on_request(command, tmp_path, interrupted, tiny_flags):
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}"]
    assert command(baseline, *places, "--kind=fpgm", "--budget=macs:0.6").code == 0
    first, second = [], []
    for found, more in ((first, []), (second, ["--inherit=none", "--overwrite"])):
        outcome = command(distill, *places, *tiny_flags, "--lr=0", *more)
        assert outcome.code == 0, outcome
        student = keras.models.load_model(tmp_path / "run/student/model.keras")
        found.append(np.array(student.trainable_weights[0]))
    assert np.abs(first[0] - second[0]).max() > 1e-3


def test_filters_need_a_teacher(command, tmp_path, trained_tiny):
    outcome = command(baseline, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--kind=l1")
    assert outcome.code == 1
    assert "there is no teacher" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_best_of_several_random_shapes(command, tmp_path, trained_tiny, tiny_flags):
    arguments = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--kind=random", *tiny_flags]
    several = ["--random_shapes=2", "--random_epochs=1"]
    outcome = command(baseline, *arguments, *several)
    assert outcome.code == 0, outcome
    assert outcome.out.count("held-out accuracy") == 2
    again = command(baseline, *arguments, *several)
    assert again.code == 0, again
    assert "held-out" not in again.out
    metrics = json.loads((tmp_path / "run/search/metrics.json").read_text())
    assert metrics["held_out_accuracy"] == max(one["held_out_accuracy"] for one in metrics["tried"])
    assert len(metrics["tried"]) == 2
    # Refused before anything is trained.
    with mock.patch.object(baseline_shapes, "best_random_shape", side_effect=AssertionError):
        assert "random_epochs" in command(baseline, *arguments, "--random_shapes=2", "--random_epochs=2").err
    outcome = command(baseline, *arguments[:2], "--kind=uniform", "--random_shapes=2")
    assert "`--random_shapes` goes with `--kind=random`" in outcome.err


@pytest.mark.slow
def test_a_seed_is_no_setting_of_a_uniform_shape(command, tmp_path, trained_tiny):
    arguments = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--kind=uniform"]
    assert command(baseline, *arguments).code == 0
    outcome = command(baseline, *arguments, "--seed=5", "--tolerance=0.2", "--data_dir=elsewhere")
    assert outcome.code == 0, outcome


def test_filters_of_another_shape_are_refused(command, tmp_path, interrupted, tiny_flags):
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}"]
    assert command(baseline, *places, "--kind=l1", "--budget=macs:0.6").code == 0
    path = tmp_path / "run/search/shape.json"
    shape = json.loads(path.read_text())
    (tmp_path / "run/search/other.json").write_text(json.dumps({**shape, "widths": {**shape["widths"], "stem": 2}}))
    outcome = command(
        distill,
        f"--run_dir={tmp_path}/other",
        f"--teacher_from={interrupted.path}",
        f"--shape={tmp_path}/run/search/other.json",
        *tiny_flags,
    )
    assert outcome.code == 1
    assert "isn't a network of the shape" in outcome.err
    assert not (tmp_path / "other").exists()
