"""Student and teacher, exported together in every format."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy import artefacts
from tas_tf.deploy.artefacts import artefact_path, export_models
from tas_tf.deploy.converters import CONVERTERS
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.jobs import Extras
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import Metadata, read_metadata
from tas_tf.deploy.saved_model import LoadedSavedModel, write_saved_model
from tas_tf.deploy.settings import FORMATS, INTEGER_FORMATS, Checks
from tas_tf.deploy.tflite import file_size
from tas_tf.deploy.verify import ArtefactMetrics
from tas_tf.errors import UserError

TORCH = Preprocessing("torch")


@dataclasses.dataclass(frozen=True)
class Everything:
    """Student and teacher in all formats, with their sources; the student classifies every image correctly."""

    models: dict[str, keras.Model]
    images: np.ndarray
    labels: np.ndarray
    extras: Extras
    out_dir: Path
    metrics: dict

    def export_int8(self, out_dir: Path, labels: np.ndarray) -> dict:
        return export_models(
            self.models,
            out_dir,
            images=self.images,
            labels=labels,
            formats=("int8",),
            extras=self.extras,
            checks=Checks(rounds=1, max_accuracy_drop=0.1),
        )


@pytest.fixture(scope="module")
def everything(make_classifier, make_pixels, settle, make_quantised, tmp_path_factory) -> Everything:
    images = (make_pixels(64, seed=5).astype(np.float32) - 128) / 74
    models = {
        name: settle(make_classifier(seed=2, filters=filters), images)
        for name, filters in (("student", 6), ("teacher", 12))
    }
    extras = Extras(
        calibration=images,
        quantised={name: make_quantised(model, images) for name, model in models.items()},
        metadata={
            name: Metadata(f"{name}'s net", tuple("abcd"), (8, 8, 3), TORCH, False, False, {"of": name})
            for name in models
        },
    )
    labels = models["student"].predict(images, verbose=0).argmax(-1)
    out_dir = tmp_path_factory.mktemp("everything") / "export"
    metrics = export_models(
        models,
        out_dir,
        images=images,
        labels=labels,
        formats=FORMATS,
        extras=extras,
        checks=Checks(rounds=2, warmup=1),
    )
    return Everything(models, images, labels, extras, out_dir, metrics)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(path: Path) -> LoadedSavedModel | TFLiteModel:
    return LoadedSavedModel(path) if path.is_dir() else TFLiteModel(path)


@pytest.mark.slow
def test_all_formats_of_both_networks(everything):
    names = {"saved_model", *(f"{format}.tflite" for format in CONVERTERS)}
    assert {path.name for path in everything.out_dir.iterdir()} == {*names, "teacher", "metrics.json"}
    assert {path.name for path in (everything.out_dir / "teacher").iterdir()} == names
    assert json.loads((everything.out_dir / "metrics.json").read_text()) == everything.metrics
    assert set(everything.metrics) == {*FORMATS, "teacher"}
    assert set(everything.metrics["teacher"]) == set(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_metrics_are_those_of_the_file(everything, name, format):
    found = (everything.metrics if name == "student" else everything.metrics[name])[format]
    path = artefact_path(everything.out_dir, format, model=name)
    outputs = load(path).predict(everything.images)
    expected = everything.models[name].predict(everything.images, verbose=0)
    assert set(found) == {field.name for field in dataclasses.fields(ArtefactMetrics)}
    assert found["accuracy"] == pytest.approx(np.mean(outputs.argmax(-1) == everything.labels))
    assert found["agreement"] == pytest.approx(np.mean(outputs.argmax(-1) == expected.argmax(-1)))
    assert found["max_abs_diff"] == pytest.approx(np.abs(outputs - expected).max(), rel=1e-3, abs=1e-6)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert found["bytes"] == sum(file.stat().st_size for file in files)
    assert found["latency_ms"] > 0
    # Rounding moves few images over a border.
    assert found["agreement"] >= (1.0 if format in ("saved_model", "fp32") else 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_qat_int8_is_the_network_trained_for_it(everything, name):
    path = artefact_path(everything.out_dir, "qat_int8", model=name)
    outputs = TFLiteModel(path).predict(everything.images)
    expected = everything.extras.quantised[name].predict(everything.images, verbose=0)
    step = Interpreter(model_path=str(path)).get_output_details()[0]["quantization"][0]
    # The calibrated file is two steps off.
    assert np.abs(outputs - expected).max() <= 1.5 * step


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_operators_are_those_of_a_tflite_file_or_none(everything, name):
    metrics = everything.metrics if name == "student" else everything.metrics[name]
    assert metrics["saved_model"]["operators"] is None
    assert metrics["fp32"]["operators"]
    for format in CONVERTERS:
        operators = metrics[format]["operators"]
        for operator in operators or ():
            assert set(operator) == {"name", "count", "milliseconds", "share"}
            assert operator["count"] >= 1
        if operators:
            times = [operator["milliseconds"] for operator in operators]
            assert times == sorted(times, reverse=True)
            assert sum(operator["share"] for operator in operators) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_each_file_carries_its_own_networks_metadata(everything, format):
    for name in ("student", "teacher"):
        found = read_metadata(artefact_path(everything.out_dir, format, model=name))
        assert (found["network"], found["format"], found["shape"]) == (f"{name}'s net", format, {"of": name})
        assert found["labels"] == list("abcd")


@pytest.mark.slow
def test_a_budget_in_bytes_is_that_of_the_file_written(everything):
    written = artefact_path(everything.out_dir, "fp32").stat().st_size
    assert file_size(everything.models["student"], metadata=everything.extras.metadata["student"]) == written


@pytest.fixture
def spoil(make_classifier, monkeypatch, tmp_path):
    """Writes another network in place of one."""

    def put(name: str) -> None:
        impostor, write = write_saved_model(make_classifier(seed=9), tmp_path / "impostor"), artefacts.write_tflite

        def write_impostor(source, path, **options):
            of = "teacher" if path.parent.name == "teacher" else "student"
            return write(impostor if of == name else source, path, **options)

        monkeypatch.setattr(artefacts, "write_tflite", write_impostor)

    return put


@pytest.mark.slow
def test_lost_accuracy_fails_loudly_and_the_earlier_export_stays(everything, spoil):
    before = contents(everything.out_dir)
    spoil("student")
    with pytest.raises(
        ExportError, match=r"The student's int8 loses \d+\.\d\d points .*1\.0000.*allows 10\.00.*qat_int8"
    ):
        everything.export_int8(everything.out_dir, everything.labels)
    assert contents(everything.out_dir) == before
    assert list(everything.out_dir.parent.iterdir()) == [everything.out_dir]


@pytest.mark.slow
def test_accuracy_that_the_teacher_loses_is_measured_alone(everything, spoil, tmp_path):
    spoil("teacher")
    # Now the teacher is right about every image.
    labels = everything.models["teacher"].predict(everything.images, verbose=0).argmax(-1)
    metrics = everything.export_int8(tmp_path / "export", labels)
    assert metrics["teacher"]["int8"]["accuracy"] < 0.5
    assert metrics["int8"]["agreement"] >= 0.9


@pytest.mark.slow
def test_preprocessing_inside_takes_pixels_in_every_format(
    make_classifier, make_pixels, settle, make_quantised, tmp_path
):
    pixels, calibration = (make_pixels(64, seed=seed) for seed in (8, 9))
    normalised = TORCH.apply(tf.constant(pixels)).numpy()
    model = settle(make_classifier(seed=2, activation="softmax"), normalised)
    expected = model.predict(normalised, verbose=0)
    metrics = export_models(
        {"student": model},
        tmp_path,
        images=pixels,
        labels=expected.argmax(-1),
        formats=FORMATS,
        preprocessing_layers=TORCH.layers(),
        extras=Extras(
            calibration=calibration,
            quantised={"student": make_quantised(model, normalised)},
            metadata={"student": Metadata("net", tuple("abcd"), (8, 8, 3), TORCH, True, True)},
        ),
        checks=Checks(rounds=1, max_accuracy_drop=0.1),
    )
    assert list(metrics) == list(FORMATS)
    for format in CONVERTERS:
        path = artefact_path(tmp_path, format)
        (fed,) = Interpreter(model_path=str(path)).get_input_details()
        assert fed["dtype"] == np.uint8
        assert fed["quantization"] == ((1.0, 0) if format in INTEGER_FORMATS else (0.0, 0))
        assert metrics[format]["accuracy"] == metrics[format]["agreement"]
        assert metrics[format]["accuracy"] >= (1.0 if format == "fp32" else 0.9)
        np.testing.assert_allclose(TFLiteModel(path).predict(pixels), expected, atol=0.03)
        assert read_metadata(path)["input"]["scale"] == [1.0]
    np.testing.assert_allclose(LoadedSavedModel(tmp_path / "saved_model").predict(pixels), expected, atol=1e-4)
    signature = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].dtype == tf.uint8


NO_NUMBER = np.full((2, 8, 8, 3), np.nan, np.float32)


@pytest.fixture(scope="module")
def fitting(make_classifier) -> dict:
    """Arguments of an export in any format, as far as they are looked at before anything is written."""
    models = {name: make_classifier(seed=2, filters=filters) for name, filters in (("student", 6), ("teacher", 12))}
    images = np.zeros((4, 8, 8, 3), np.float32)
    extras = Extras(calibration=images, quantised=models, metadata={})
    return {"models": models, "images": images, "labels": np.zeros(4, int), "extras": extras}


@pytest.mark.parametrize(
    ("formats", "changes", "match"),
    [
        (("fp32", "int8"), {"calibration": None}, "`calibration` must hold at least one"),
        (("fp32", "qat_int8"), {"calibration": None}, "`calibration` must hold at least one"),
        (("int8",), {"calibration": NO_NUMBER[:0]}, "`calibration` must hold at least one"),
        (("int8",), {"calibration": NO_NUMBER}, "NaN or infinity"),
        (("fp32", "qat_int8"), {"quantised": {}}, "`quantised`.* Missing: student, teacher"),
        (("fp32", "qat_int8"), {"quantised": {"student": None}}, "`quantised`.* Missing: teacher"),
    ],
)
def test_what_a_format_lacks_is_told_before_anything_is_written(
    fitting, tmp_path, monkeypatch, formats, changes, match
):
    monkeypatch.setattr(artefacts, "_staging", None)  # nor is anything begun
    extras = dataclasses.replace(fitting["extras"], **changes)
    with pytest.raises(UserError, match=match):
        export_models(out_dir=tmp_path / "export", formats=formats, **{**fitting, "extras": extras})
    assert list(tmp_path.iterdir()) == []
