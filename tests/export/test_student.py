"""`python -m export.student` in its own process, with only a run folder."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from export import student
from tas_tf.data.task import Task
from tas_tf.deploy import artefacts
from tas_tf.deploy.metadata import read_metadata
from tas_tf.extras import EXTRAS
from tas_tf.files import read_json, write_json, write_model
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.commands import Outcome, quiet_environment, run_command
from tests.digits import tiny_network
from tests.networks import classify, conv_bn, randomize

ROOT = Path(__file__).parents[2]
QUICK = ("--progress=none", "--latency_rounds=2", "--latency_warmup=0", "--max_accuracy_drop=1")


def make_run(folder: Path, network: keras.Model) -> Path:
    """A run after distillation with random weights; its teacher is in another folder."""
    space = SearchSpace.from_graph(Graph.from_model(network))
    shape = Shape.random(space, 1)
    write_model(folder / "other/teacher/model.keras", randomize(network))
    small = randomize(build_student(space, shape))
    run = folder / "run"
    write_model(run / "student/model.keras", small)
    write_json(run / "search/shape.json", shape.to_json())
    for step in (run / "student", folder / "other/teacher"):
        write_json(step / "metrics.json", {"accuracy": 0.5, "loss": 1.0, "macs": 1, "params": 1})
    (run / "flags.cfg").write_text(
        f"--dataset=digits\n--train_limit=150\n--teacher_from={folder}/other\n--test_limit=50\n--noflip\n--formats=fp32\n"
    )
    return run


@pytest.fixture
def run_folder(tmp_path) -> Path:
    return make_run(tmp_path, tiny_network())


def export(run: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "export.student", f"--run_dir={run}", *arguments],
        cwd=ROOT,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
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


@pytest.mark.slow
def test_files_are_written_without_the_extra_for_the_page(run_folder, monkeypatch):
    for name in EXTRAS["report"]:
        monkeypatch.setitem(sys.modules, name, None)
    outcome = run_command(student, f"--run_dir={run_folder}", *QUICK)
    assert outcome.code == 0, outcome
    assert "The page report.html needs the extra `report`" in outcome.out
    assert "Test set results" in outcome.out
    assert (run_folder / "export/fp32.tflite").exists()
    assert (run_folder / "report.json").exists()
    assert not (run_folder / "report.html").exists()


def test_a_difference_beyond_tolerance_leaves_nothing(run_folder):
    outcome = run_command(student, f"--run_dir={run_folder}", "--export_tolerance=0")
    assert outcome.code == 1
    assert outcome.err.startswith("error: The ")
    assert "differs from its Keras model" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (run_folder / "export/metrics.json").exists()
    assert not list(run_folder.rglob("*.tflite"))
    assert not list(run_folder.rglob(".partial*"))


def digits_network(outputs_of: Callable) -> keras.Model:
    images = keras.Input((8, 8, 1))
    return keras.Model(images, outputs_of(images))


def contents(run: Path) -> dict[Path, bytes]:
    """All files except the last settings."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {path.relative_to(run): path.read_bytes() for path in files if path.name != "flags.cfg"}


def check_refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 1, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> tuple[Path, Outcome]:
    """A run of the smallest network, exported in integers, and the outcome."""
    run = make_run(tmp_path_factory.mktemp("quantised"), digits_network(lambda x: classify(conv_bn(x, 6), 10)))
    outcome = run_command(
        *(student, f"--run_dir={run}", "--formats=int8,qat_int8", *QUICK),
        *("--qat_epochs=1", "--qat_float", "--batch_size=50", "--calibration_images=40"),
    )
    return run, outcome


@pytest.fixture
def quantised_run(quantised, tmp_path) -> Path:
    """A copy of the run, which the test may change; the teacher stays where it was."""
    return Path(shutil.copytree(quantised[0], tmp_path / "run"))


@pytest.mark.slow
def test_integer_formats(quantised):
    run, outcome = quantised
    assert (outcome.code, outcome.err) == (0, "")
    metrics = json.loads((run / "export/metrics.json").read_text())
    assert set(metrics) == {"int8", "qat_int8", "teacher"}
    assert set(metrics["teacher"]) == {"int8", "qat_int8"}
    assert {path.name for path in (run / "export").iterdir()} == {
        *("int8.tflite", "qat_int8.tflite", "teacher", "metrics.json", "digest.json"),
    }
    assert not list(run.rglob("checkpoints"))
    trained = {name: json.loads((run / f"qat_{name}/metrics.json").read_text()) for name in ("student", "teacher")}
    assert {"accuracy", "calibrated_accuracy", "epochs", "seconds"} <= set(trained["teacher"])
    assert trained["student"]["epochs"] == 1
    # The control is the student's alone, and a row of its own.
    assert "float_accuracy" in trained["student"]
    assert "float_accuracy" not in trained["teacher"]
    report = json.loads((run / "report.json").read_text())
    assert report["student"]["qat"] == trained["student"]
    assert report["student"]["tflite"]["qat_int8"]["bytes"] == (run / "export/qat_int8.tflite").stat().st_size
    for shown in (
        "Student against teacher",
        "float control, fine-tuned for as long (whole test set)",
        "qat_int8.tflite",
    ):
        assert shown in outcome.out


def test_files_say_whose_they_are(quantised):
    run, _ = quantised
    shape = json.loads((run / "search/shape.json").read_text())
    for format in ("int8", "qat_int8"):
        own, other = (read_metadata(run / f"export/{place}{format}.tflite") for place in ("", "teacher/"))
        assert own["labels"] == [str(digit) for digit in range(10)]
        assert (own["format"], own["output"]) == (format, "logits")
        assert own["shape"] == shape
        assert list(shape["widths"].values()) == [3]
        assert list(other["shape"]["widths"].values()) == [6]
        assert own["input"]["preprocessing"] == "standardise"


@pytest.mark.slow
def test_other_formats_simply_are_exported_again(quantised_run):
    trained = {path: content for path, content in contents(quantised_run).items() if path.parts[0].startswith("qat_")}
    outcome = run_command(student, f"--run_dir={quantised_run}", "--formats=int8", "--preprocessing_inside", *QUICK)
    assert (outcome.code, outcome.err) == (0, "")
    left = {path.name for path in (quantised_run / "export").rglob("*") if path.is_file()}
    assert left == {"int8.tflite", "metrics.json", "digest.json"}
    assert set(json.loads((quantised_run / "export/metrics.json").read_text())) == {"int8", "teacher"}
    (fed,) = Interpreter(model_path=str(quantised_run / "export/int8.tflite")).get_input_details()
    assert (fed["dtype"], fed["quantization"]) == (np.uint8, (1.0, 0))
    assert read_metadata(quantised_run / "export/int8.tflite")["input"]["inside"] is True
    assert {path: content for path, content in contents(quantised_run).items() if path in trained} == trained
    assert "float, fine-tuned" not in outcome.out

    before = contents(quantised_run / "export")
    outcome = run_command(student, f"--run_dir={quantised_run}", "--formats=int8", "--preprocessing_inside", *QUICK)
    assert outcome.code == 0
    assert "up to date" in outcome.out
    assert contents(quantised_run / "export") == before


@pytest.mark.slow
def test_int8_as_a_c_array(quantised_run):
    """The flag makes the export stale; the files are listed, and gone without it."""
    folder, flags = quantised_run / "export", ("--formats=int8", "--preprocessing_inside", *QUICK)
    outcome = run_command(student, f"--run_dir={quantised_run}", *flags, "--c_array")
    assert outcome.code == 0, outcome.err
    micro = read_json(folder / "metrics.json")["int8"]["micro"]
    assert {"AddConv2D", "AddQuantize"} <= {*micro["operators"]}
    header = (folder / "int8.h").read_text()
    assert f"int8_model_size = {micro['flash']};" in header
    assert f"int8_arena_size = {micro['arena']};" in header
    assert "//   9: " in header
    assert read_json(quantised_run / "report.json")["files"]["C++ array int8"] == str(folder / "int8.cc")
    assert run_command(student, f"--run_dir={quantised_run}", *flags, "--noc_array").code == 0
    assert not [*folder.glob("int8.[ch]*")]


def test_int8_that_is_never_right_leaves_the_earlier_export(quantised_run, monkeypatch):
    labels = Task.load("digits", train_limit=150).test_arrays(50)[1]
    monkeypatch.setattr(artefacts.TFLiteModel, "predict", lambda *_: -np.eye(10, dtype=np.float32)[labels])
    before = contents(quantised_run)
    outcome = run_command(student, f"--run_dir={quantised_run}", "--formats=int8", *QUICK, "--max_accuracy_drop=0.015")
    check_refused(outcome, "The student's int8 loses ", "to 0.0000)", "allows 1.50", "qat_int8", "--calibration_images")
    assert contents(quantised_run) == before
    assert not list(quantised_run.rglob(".partial*"))


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--formats=int4", ["`--formats`", "saved_model, fp32, fp16, dynamic, int8, qat_int8", "'int4'"]),
        ("--formats=fp32,INT8", ["`--formats`", "'INT8'"]),
        ("--formats=", ["`--formats`", "saved_model, fp32, fp16, dynamic, int8, qat_int8"]),
        ("--formats=,", ["`--formats`"]),
        ("--calibration_images=0", ["`--calibration_images` must be at least 1. Received: 0."]),
        ("--calibration_images=few", ["--calibration_images=few", "whole number"]),
        ("--max_accuracy_drop=2", ["`--max_accuracy_drop` must be ", "Received: 2.0."]),
        ("--qat_epochs=0", ["`--qat_epochs` must be at least 1. Received: 0."]),
        ("--qat_lr=-1", ["`--qat_lr` must be at least 0. Received: -1.0."]),
    ],
)
def test_bad_flags_change_nothing(quantised, flag, parts):
    run, _ = quantised
    before, flags = contents(run), (run / "flags.cfg").read_bytes()
    check_refused(run_command(student, f"--run_dir={run}", flag), *parts)
    assert contents(run) == before
    assert (run / "flags.cfg").read_bytes() == flags


@pytest.mark.parametrize("formats", ["fp32", "int8,qat_int8"])
def test_a_run_without_a_student(quantised_run, formats):
    (quantised_run / "student/model.keras").unlink()
    before = contents(quantised_run)
    outcome = run_command(student, f"--run_dir={quantised_run}", f"--formats={formats}")
    check_refused(outcome, "`--run_dir`: there is no student", "student/model.keras", "`python -m trainers.distill`")
    assert contents(quantised_run) == before


def normalised_late(x):
    x = layers.AveragePooling2D(2, name="shrunk")(conv_bn(x, 6))
    return classify(layers.LayerNormalization(name="odd_norm")(x), 10)


def squared(x):
    return classify(keras.ops.square(conv_bn(x, 6)), 10)


@pytest.mark.parametrize(
    ("outputs_of", "named"),
    [(normalised_late, "odd_norm (LayerNormalization)"), (squared, "(Square)")],
    ids=["layer", "function"],
)
def test_a_network_that_cannot_be_trained_for_8_bits(tmp_path, outputs_of, named):
    run = make_run(tmp_path, digits_network(outputs_of))
    before = contents(run)
    outcome = run_command(student, f"--run_dir={run}", "--formats=fp32,qat_int8", *QUICK)
    check_refused(
        outcome, "`--formats`: the student can't become qat_int8", named, "--qat_fallback", "Leave qat_int8 out"
    )
    assert contents(run) == before


@pytest.mark.slow
def test_fallback_to_calibrated_integers(tmp_path):
    run = make_run(tmp_path, digits_network(normalised_late))
    flags = ("--formats=qat_int8,int8", "--qat_fallback", "--calibration_images=20", *QUICK)
    outcome = run_command(student, f"--run_dir={run}", *flags)
    assert (outcome.code, outcome.err) == (0, "")
    (told,) = [line for line in outcome.out.splitlines() if line.startswith("int8 instead of qat_int8")]
    assert "odd_norm (LayerNormalization)" in told
    assert "--qat_fallback" not in told
    assert set(json.loads((run / "export/metrics.json").read_text())) == {"int8", "teacher"}
    assert {path.name for path in run.rglob("*.tflite")} == {"int8.tflite"}
    assert not list(run.glob("qat_*"))
    assert "up to date" in run_command(student, f"--run_dir={run}", *flags).out
