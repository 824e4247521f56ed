"""The whole pipeline: which steps run, are skipped, are rejected, or run again."""

import json
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
from PIL import Image

from export import student as export_command
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from trainers import pipeline, report, teacher


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files except the report and its figures in TensorBoard, which are always written again."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stem != "report"]
    return {str(path): (folder / path).read_bytes() for path in files if path.parts[:2] != ("logs", "results")}


def up_to_date(out: str) -> list[str]:
    """Steps that had nothing to do."""
    lines = out.splitlines()
    return [lines[place - 1].split(" ─")[0] for place, line in enumerate(lines) if line == "up to date"]


def test_an_interruption_between_steps_loses_nothing(interrupted):
    _, _, first, second = interrupted
    assert first.code == 130
    assert "interrupted" in first.err
    assert second.code == 0, second.err
    assert second.err == ""
    assert up_to_date(second.out) == ["teacher", "search"]


def test_everything_that_was_promised_is_there(interrupted, trained_tiny):
    path = interrupted.path
    for name in ("teacher/model.keras", "student/model.keras", "search/shape.json", "flags.cfg", "report.html"):
        assert (path / name).is_file(), name
    for name in ("teacher", "search", "student", "rivals/uniform/student"):
        assert (path / name / "metrics.json").is_file()
        assert not (path / name / "checkpoints").exists()
    assert not list(path.rglob(".partial*"))
    space = SearchSpace.from_graph(Graph.from_model(keras.models.load_model(trained_tiny)))
    cost = CostModel(space)
    shapes = [Shape.load(path / name / "search/shape.json") for name in ("", "rivals/uniform")]
    for shape in shapes:
        shape.check(space)
    assert all(cost(shape) <= cost.full // 2 for shape in shapes)
    assert set(shapes[1].depths.values()) == {2}
    found = read(path / "report.json")
    assert found["rivals"] == ["uniform"]
    for name, macs in zip(("teacher", "student", "uniform"), (cost.full, *map(cost, shapes)), strict=True):
        assert found[name]["macs"] == macs
        assert found[name]["params"] > 0
        assert 0 <= found[name]["accuracy"] <= 1
        assert set(found[name]["tflite"]) == {"fp32"}
    exported = read(path / "export/metrics.json")
    for artefact in ("saved_model", "fp32"):
        for metrics in (exported[artefact], exported["teacher"][artefact], exported["uniform"][artefact]):
            assert {"accuracy", "bytes", "latency_ms", "max_abs_diff"} <= set(metrics)
            assert metrics["max_abs_diff"] < 1e-3
    assert (path / "export/saved_model/saved_model.pb").is_file()
    assert (path / "export/fp32.tflite").stat().st_size == exported["fp32"]["bytes"]
    assert (path / "export/teacher/fp32.tflite").is_file()


def test_the_teacher_is_the_users_model(interrupted, trained_tiny):
    theirs, ours = (keras.models.load_model(path) for path in (trained_tiny, interrupted.path / "teacher/model.keras"))
    images, labels = Task.load("digits", train_limit=200).test_arrays()
    expected = theirs.predict(images, verbose=0)
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-6)
    accuracy = read(interrupted.path / "teacher/metrics.json")["accuracy"]
    assert accuracy == pytest.approx((expected.argmax(-1) == labels).mean())


def test_the_report_is_printed_as_json(interrupted, finished, command):
    for module, arguments in ((pipeline, interrupted.flags), (export_command, [])):
        outcome = command(module, f"--run_dir={finished}", *arguments, "--json")
        assert outcome.code == 0, outcome
        assert json.loads(outcome.out) == json.loads((finished / "report.json").read_text())
        assert "up to date" in outcome.err


def test_a_second_call_does_nothing(interrupted, finished, command):
    before = snapshot(finished)
    with mock.patch.object(Task, "load", side_effect=AssertionError("data was loaded")):
        outcome = command(pipeline, f"--run_dir={finished}", *interrupted.flags)
    assert outcome.code == 0, outcome
    assert up_to_date(outcome.out) == ["teacher", "search", "student", "rival uniform", "export"]
    assert "Test set results" in outcome.out
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("change", "step", "difference"),
    [
        ("--search_epochs=2", "search", "search_epochs: was 1, now 2"),
        ("--budget=macs:0.6", "search", 'budget: was "macs:0.5", now "macs:0.6"'),
        ("--kd_alpha=0.5", "student", "kd_alpha: was 0.9, now 0.5"),
        ("--nokd", "student", "kd: was true, now false"),
        ("--preprocess=scale_0_1", "teacher", 'preprocess: was "standardise", now "scale_0_1"'),
    ],
)
def test_a_changed_flag_is_refused_by_name(interrupted, finished, command, change, step, difference):
    before = snapshot(finished)
    outcome = command(pipeline, f"--run_dir={finished}", *interrupted.flags, change)
    assert outcome.code == 1
    assert f"`{step}`" in outcome.err
    assert difference in outcome.err
    assert "--overwrite" in outcome.err
    assert snapshot(finished) == before


def test_an_export_is_made_again_where_its_flags_change(interrupted, finished, command):
    before = snapshot(finished)
    outcome = command(pipeline, f"--run_dir={finished}", *interrupted.flags, "--formats=fp16")
    assert outcome.code == 0, outcome
    assert up_to_date(outcome.out) == ["teacher", "search", "student", "rival uniform"]
    assert {path.name for path in (finished / "export").glob("*.tflite")} == {"fp16.tflite"}
    assert set(read(finished / "export/metrics.json")) == {"fp16", "teacher", "uniform"}
    kept = {path: content for path, content in before.items() if "student" in str(path)}
    assert {path: snapshot(finished)[path] for path in kept} == kept


@pytest.mark.parametrize("changed", ["shape", "teacher"])
def test_a_changed_input_makes_stale_what_was_made_from_it(interrupted, finished, command, changed):
    if changed == "shape":
        path = finished / "search/shape.json"
        data = read(path)
        data["widths"]["stem"] = 1 + data["widths"]["stem"] % 8
        path.write_text(json.dumps(data))
    else:
        path = finished / "teacher/model.keras"
        model = keras.models.load_model(path)
        model.weights[0].assign(model.weights[0] + 0.01)
        model.save(path)
    outcome = command(pipeline, f"--run_dir={finished}", *interrupted.flags)
    assert outcome.code == 1
    assert up_to_date(outcome.out) == ["teacher", "search"]
    assert f"input {changed}: was another file" in outcome.err


def test_overwrite_makes_again_what_is_stale_alone(interrupted, finished, command):
    shutil.rmtree(finished / "rivals")
    before = snapshot(finished)
    arguments = [*interrupted.flags, "--rivals=", "--formats=fp32", "--student_lr=0.01"]
    outcome = command(pipeline, f"--run_dir={finished}", *arguments, "--overwrite")
    assert outcome.code == 0, outcome
    assert up_to_date(outcome.out) == ["teacher", "search"]
    after = snapshot(finished)
    assert after["teacher/model.keras"] == before["teacher/model.keras"]
    assert after["student/model.keras"] != before["student/model.keras"]
    assert set(read(finished / "export/metrics.json")) == {"fp32", "teacher"}
    assert read(finished / "report.json")["rivals"] == []
    assert "--student_lr=0.01" in after["flags.cfg"].decode()


@pytest.mark.slow
def test_teacher_and_shape_of_another_run(interrupted, command, tmp_path, tiny_flags):
    shape = interrupted.path / "search/shape.json"
    places = [f"--teacher_from={interrupted.path}", f"--shape={shape}", f"--run_dir={tmp_path}/run"]
    outcome = command(pipeline, *places, *tiny_flags, "--formats=fp32", "--rivals=l1,no_kd")
    assert outcome.code == 0, outcome
    assert not (tmp_path / "run/teacher").exists()
    assert not (tmp_path / "run/search").exists()
    found, other = read(tmp_path / "run/report.json"), read(interrupted.path / "report.json")
    assert found["teacher"]["accuracy"] == other["teacher"]["accuracy"]
    assert found["student"]["macs"] == other["student"]["macs"]
    assert found["l1"]["macs"] != found["student"]["macs"]  # a rival's shape is its own
    assert found["no_kd"]["macs"] == found["student"]["macs"]
    assert (found["no_kd"]["kd"], found["student"]["kd"]) == (False, True)
    assert json.loads((tmp_path / "run/rivals/l1/student/digest.json").read_text())["settings"]["start"] == "filters"
    # The run's flags come back from its folder, the teacher's place among them.
    outcome = command(export_command, f"--run_dir={tmp_path}/run")
    assert outcome.code == 0, outcome
    assert "up to date" in outcome.out.replace("\n", "")
    outcome = command(report, f"--run_dir={tmp_path}/run")
    assert outcome.code == 0, outcome
    assert read(tmp_path / "run/report.json")["rivals"] == ["l1", "no_kd"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[str]:
    """Flags for a folder of images, some of the digits."""
    source, root = Task.load("digits").source, tmp_path_factory.mktemp("photos")
    for split, count in (("train", 20), ("test", 6)):
        labels = source.labels(split)
        for label in range(10):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for row in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(source.images(split)[row, ..., 0]).save(folder / f"{row}.png")
    return [f"--dataset=folder:{root}", "--image_size=8", "--train_limit=150"]


def test_a_folder_of_images(command, photos, tmp_path, trained_tiny, tiny_flags):
    outcome = command(teacher, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags, *photos)
    assert outcome.code == 0, outcome
    assert read(tmp_path / "run/teacher/metrics.json")["accuracy"] > 0.3
    assert photos[0] in (tmp_path / "run/flags.cfg").read_text().splitlines()


@pytest.mark.slow
def test_a_student_for_a_folder_of_images(command, interrupted, photos, tmp_path, trained_tiny, tiny_flags):
    outcome = command(
        pipeline,
        f"--run_dir={tmp_path}/run",
        f"--model={trained_tiny}",
        f"--shape={interrupted.path}/search/shape.json",
        *tiny_flags,
        *photos,
        "--preprocessing_inside",
        "--formats=fp32",
    )
    assert outcome.code == 0, outcome
    found = read(tmp_path / "run/report.json")
    assert found["teacher"]["accuracy"] > 0.3
    assert f"--dataset={found['settings']['dataset']}" == photos[0]
    exported = read(tmp_path / "run/export/metrics.json")
    assert exported["teacher"]["fp32"]["accuracy"] == pytest.approx(found["teacher"]["accuracy"], abs=0.02)


def test_dry_run_writes_nothing(interrupted, command, tmp_path, finished):
    outcome = command(pipeline, f"--run_dir={tmp_path}/new", *interrupted.flags, "--dry_run")
    assert outcome.code == 0, outcome
    assert not (tmp_path / "new").exists()
    for word in ("teacher", "search", "student", "rival uniform", "iterations", "MACs", "peak memory"):
        assert word in outcome.out
    before = snapshot(finished)
    outcome = command(pipeline, f"--run_dir={finished}", *interrupted.flags, "--dry_run", "--student_epochs=2")
    assert outcome.code == 1, outcome
    assert outcome.out.count("up to date") == 2
    assert outcome.out.count("refused") == 2
    assert "would stop at `student`" in outcome.err
    assert snapshot(finished) == before


def test_mistakes_of_later_steps_are_told_at_once(interrupted, command, tmp_path, tiny_flags):
    for mistake, message in {
        "--formats=fp33": "`--formats` must name some of",
        "--formats=": "`--formats` must name some of",
        "--rivals=best": "`--rivals` must name some of",
        "--kd_temperature=0": "`--kd_temperature` must be above 0",
        "--arch_betas=0.5": "`--arch_betas` must be 2 numbers",
        "--batch_size=101": "`--batch_size` doesn't fit",  # the search has half of the images
        "--budget=macs:0.001": "`--budget` is below",
    }.items():
        outcome = command(pipeline, f"--run_dir={tmp_path}/run", *interrupted.flags, mistake)
        assert (outcome.code, outcome.out) == (1, ""), (mistake, outcome)
        assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_not_trained_for_nothing(interrupted, command, tmp_path, tiny_flags):
    """`--teacher_from` names a folder without a teacher."""
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", f"--teacher_from={tmp_path}/none", *interrupted.flags)
    assert outcome.code == 1
    assert "`--teacher_from`: there is no teacher" in outcome.err
    assert not (tmp_path / "run").exists()
    outcome = command(teacher, f"--run_dir={interrupted.path}", *interrupted.flags)
    assert "is up to date: test accuracy" in outcome.out


def test_the_student_is_plain_keras(interrupted):
    with zipfile.ZipFile(interrupted.path / "student/model.keras") as archive:
        config = json.loads(archive.read("config.json"))
    assert not config.get("compile_config")
    assert "tas_tf" not in json.dumps(config)
