import json
import shutil

import keras
import numpy as np
import pytest

from tas_tf.deploy import artefacts
from tas_tf.deploy.artefacts import artefact_path, export_models
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.jobs import Extras
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import LoadedSavedModel, write_saved_model
from tas_tf.deploy.settings import Checks, ExportSettings
from tas_tf.errors import UserError
from tas_tf.runs.run import Run
from tests.failures import fail_at

KEYS = {
    "metric",
    "score",
    "accuracy",
    "agreement",
    "bytes",
    "latency_ms",
    "latency_spread_ms",
    "max_abs_diff",
    "operators",
    "layers",
    "micro",
}


@pytest.fixture(scope="module")
def models(make_classifier):
    return {"student": make_classifier(seed=1, filters=4), "teacher": make_classifier(seed=2, filters=12)}


@pytest.fixture(scope="module")
def exported(models, test_set, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("run") / "export"
    lines = []
    metrics = export_models(
        models, out_dir, images=test_set[0], labels=test_set[1], checks=Checks(rounds=3), progress=lines.append
    )
    return out_dir, metrics, lines


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_and_metrics(exported, models, test_set):
    out_dir, metrics, lines = exported
    images, labels = test_set
    assert {path.name for path in out_dir.iterdir()} == {"saved_model", "fp32.tflite", "teacher", "metrics.json"}
    assert {path.name for path in (out_dir / "teacher").iterdir()} == {"saved_model", "fp32.tflite"}
    assert list(out_dir.parent.iterdir()) == [out_dir]
    assert json.loads((out_dir / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"saved_model", "fp32", "teacher"}
    for name, found in (("student", metrics), ("teacher", metrics["teacher"])):
        accuracy = np.mean(models[name].predict(images, verbose=0).argmax(-1) == labels)
        for format in ("saved_model", "fp32"):
            assert set(found[format]) == KEYS
            assert found[format]["accuracy"] == pytest.approx(accuracy)
            assert found[format]["agreement"] == 1.0
            assert found[format]["latency_ms"] > 0
            assert found[format]["max_abs_diff"] < 1e-4
    assert metrics["fp32"]["bytes"] == (out_dir / "fp32.tflite").stat().st_size
    assert metrics["fp32"]["bytes"] < metrics["teacher"]["fp32"]["bytes"]
    assert metrics["saved_model"]["layers"] is None
    for found in (metrics["fp32"], metrics["teacher"]["fp32"]):
        assert sum(layer["bytes"] for layer in found["layers"]) == found["bytes"]
        assert all(layer["name"] for layer in found["layers"])
    assert any("fp32" in line for line in lines)


def test_each_artefact_is_its_own_model(exported, models, test_set):
    out_dir, images = exported[0], test_set[0]
    for folder, name in ((out_dir, "student"), (out_dir / "teacher", "teacher")):
        expected = models[name].predict(images, verbose=0)
        np.testing.assert_allclose(LoadedSavedModel(folder / "saved_model").predict(images), expected, atol=1e-4)
        np.testing.assert_allclose(TFLiteModel(folder / "fp32.tflite").predict(images), expected, atol=1e-4)


def test_a_wrong_artefact_fails_loudly_and_the_earlier_export_stays(
    exported, models, make_classifier, test_set, monkeypatch, tmp_path
):
    out_dir = exported[0]
    before = snapshot(out_dir)
    impostor = write_saved_model(make_classifier(seed=5, filters=12), tmp_path / "impostor")
    write = artefacts.write_tflite

    def write_impostor(source, path, **options):
        return write(impostor if path.parent.name == "teacher" else source, path, **options)

    monkeypatch.setattr(artefacts, "write_tflite", write_impostor)
    with pytest.raises(ExportError, match="teacher's fp32 differs from its Keras model: max_abs_diff"):
        export_models(models, out_dir, images=test_set[0], labels=test_set[1], checks=Checks(rounds=1))
    assert snapshot(out_dir) == before
    assert list(out_dir.parent.iterdir()) == [out_dir]


def test_a_failure_while_files_are_put_in_place_leaves_the_earlier_export(exported, models, test_set, monkeypatch):
    """At the last of them; tests/test_replacing.py has all."""
    out_dir = exported[0]
    before = snapshot(out_dir)
    options = {"images": test_set[0], "labels": test_set[1], "formats": ("fp32",), "checks": Checks(rounds=1)}
    with monkeypatch.context() as patch:
        moved = fail_at(patch, "os.replace", 10**6)
        export_models(models, out_dir.with_name("other"), **options)
    shutil.rmtree(out_dir.with_name("other"))
    earlier = 5  # files and folders that have to be moved away: two of each model, and the metrics
    fail_at(monkeypatch, "os.replace", len(moved) + earlier - 1)
    with pytest.raises(OSError, match="failure"):
        export_models(models, out_dir, **options)
    assert snapshot(out_dir) == before


def test_failing_midway_leaves_nothing_in_a_new_place(models, test_set, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise ExportError("no kernel")

    monkeypatch.setattr(artefacts, "write_tflite", fail)
    with pytest.raises(ExportError, match="no kernel"):
        export_models(models, tmp_path / "export", images=test_set[0], labels=test_set[1], checks=Checks(rounds=1))
    assert list(tmp_path.iterdir()) == []


def test_one_format_preprocessing_and_a_rival(models, tmp_path):
    rng = np.random.default_rng(1)
    raw, labels = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 20)
    metrics = export_models(
        {"student": models["student"], "random": models["teacher"]},
        tmp_path / "export",
        images=raw,
        labels=labels,
        formats=("fp32",),
        preprocessing_layers=[keras.layers.Rescaling(1 / 127.5, offset=-1)],
        checks=Checks(rounds=1),
    )
    assert set(metrics) == {"fp32", "random"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"fp32.tflite", "random", "metrics.json"}
    normalised = raw.astype(np.float32) / 127.5 - 1
    expected = models["student"].predict(normalised, verbose=0)
    assert metrics["fp32"]["accuracy"] == pytest.approx((expected.argmax(-1) == labels).mean())
    np.testing.assert_allclose(
        TFLiteModel(tmp_path / "export" / "fp32.tflite").predict(raw),
        expected,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"formats": ("fp32", "int4")}, "saved_model, fp32"),
        ({"formats": ()}, "`formats`"),
        ({"images": np.zeros((37, 8, 8, 3), np.uint8)}, "float32"),
        ({"images": np.zeros((37, 9, 8, 3), np.float32)}, r"\(8, 8, 3\)"),
        ({"images": np.zeros((37, 64), np.float32)}, r"\(8, 8, 3\).*Received: \(64,\)"),
        ({"labels": np.full(37, 4)}, "0 to 3"),
    ],
)
def test_bad_arguments(models, test_set, tmp_path, changes, match):
    options = {"images": test_set[0], "labels": test_set[1], **changes}
    with pytest.raises(UserError, match=match):
        export_models(models, tmp_path / "export", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fp32", "a/b", "..", "metrics.json", ""])
def test_bad_model_names(models, test_set, tmp_path, name):
    with pytest.raises(UserError, match="a name becomes a folder"):
        export_models({**models, name: models["teacher"]}, tmp_path / "x", images=test_set[0], labels=test_set[1])


def test_student_is_required(models, test_set, tmp_path):
    with pytest.raises(UserError, match="'student'"):
        export_models({"teacher": models["teacher"]}, tmp_path / "x", images=test_set[0], labels=test_set[1])


def test_other_files_stay_and_artefacts_left_out_go(models, test_set, tmp_path):
    for folder in (tmp_path, tmp_path / "teacher"):
        (folder / "saved_model").mkdir(parents=True)
        (folder / "saved_model" / "old").touch()
        (folder / "digest.json").write_text("kept")
        (folder / "fp32.tflite").write_text("old")
    export_models(models, tmp_path, images=test_set[0], labels=test_set[1], formats=("fp32",), checks=Checks(rounds=1))
    assert {path.name for path in tmp_path.iterdir()} == {"digest.json", "fp32.tflite", "teacher", "metrics.json"}
    assert {path.name for path in (tmp_path / "teacher").iterdir()} == {"digest.json", "fp32.tflite"}
    assert (tmp_path / "digest.json").read_text() == "kept"
    assert TFLiteModel(tmp_path / "fp32.tflite").predict(test_set[0]).shape == (37, 4)


def test_the_students_int8_file_as_a_c_array(models, test_set, tmp_path):
    """Beside the file, and gone with the next export that doesn't ask for it."""
    extras, checks = Extras(calibration=test_set[0]), Checks(rounds=1, max_accuracy_drop=1.0)
    given = {"images": test_set[0], "labels": test_set[1], "formats": ("int8",), "extras": extras, "checks": checks}
    lines = []
    metrics = export_models(models, tmp_path, **given, c_array=True, progress=lines.append)
    assert {path.name for path in tmp_path.iterdir()} == {"int8.tflite", "int8.cc", "int8.h", "teacher", "metrics.json"}
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["int8.tflite"]
    micro = metrics["int8"]["micro"]
    assert micro["flash"] == (tmp_path / "int8.tflite").stat().st_size
    assert micro["arena"] == micro["planned"] + micro["kept"]
    assert micro["operators"] == ["AddAdd", "AddConv2D", "AddFullyConnected", "AddMean"]
    assert metrics["teacher"]["int8"]["micro"] is None
    assert any(f"{micro['flash']:,} bytes of flash" in line for line in lines)
    assert '#include "int8.h"' in (tmp_path / "int8.cc").read_text()

    export_models({"student": models["student"]}, tmp_path, **given)
    assert {path.name for path in tmp_path.iterdir()} == {"int8.tflite", "metrics.json"}


def test_a_c_array_needs_a_format_of_integers():
    with pytest.raises(UserError, match=r"`c_array` needs .* int8 or qat_int8\. Received: saved_model, fp32"):
        ExportSettings(c_array=True)
    assert ExportSettings(c_array=True, formats=("fp32", "qat_int8")).c_array


def test_a_file_in_the_place_of_the_folder(models, test_set, tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="out_dir"):
        export_models(models, tmp_path / "x", images=test_set[0], labels=test_set[1])


@pytest.mark.slow
def test_it_fits_into_a_step_of_a_run(models, test_set, tmp_path):
    outputs = [tmp_path / "export" / "metrics.json", artefact_path(tmp_path / "export", "fp32", model="teacher")]
    step = Run(tmp_path).step("export", settings={}, inputs={}, outputs=outputs)
    for overwrite in (False, True):
        assert step.begin(overwrite=overwrite)
        export_models(
            models, step.folder, images=test_set[0], labels=test_set[1], formats=("fp32",), checks=Checks(rounds=1)
        )
        step.finish()
        assert step.status() == "fresh"


def test_a_diverged_model_is_named(models, make_classifier, test_set, tmp_path):
    broken = make_classifier(seed=3)
    broken.set_weights([np.full(weight.shape, np.nan) for weight in broken.get_weights()])
    with pytest.raises(UserError, match="the teacher returns NaN"):
        export_models({**models, "teacher": broken}, tmp_path / "x", images=test_set[0], labels=test_set[1])
    assert list(tmp_path.iterdir()) == []
