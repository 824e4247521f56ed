"""Lines to copy: they are run on real files, and their answers compared with those of Keras."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy.described import describe_file
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.saved_model import serving_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.report.page import render_html
from tas_tf.report.report import build_report
from tas_tf.report.snippets import kotlin_lines, make_snippets, python_lines
from tests.networks import randomize
from tests.parts import slow_except
from tests.report.pieces import deployable

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.float32)
LABELS = ("ant", "bee", "cow", "dog")


def network(outputs: int = 4, activation: str | None = None, *, per_pixel: bool = False) -> keras.Model:
    images = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(images)
    last = keras.layers.Conv2D if per_pixel else keras.layers.Dense
    options = {"kernel_size": 1} if per_pixel else {}
    x = x if per_pixel else keras.layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(images, last(outputs, activation=activation, **options)(x)))


def described(path: Path) -> dict[str, Any]:
    return {"path": str(path), **describe_file(path)}


def run(file: dict[str, Any], *images: np.ndarray) -> tuple[np.ndarray, str]:
    """Runs the lines with images in the place of zeros; returns the last output and what was printed."""
    program, given = python_lines(file), iter(range(len(images)))
    program = re.sub(r"np\.zeros\(\(.*?\), np\.float32\)", lambda _: f"images[{next(given)}].copy()", program)
    assert next(given, None) is None
    names, printed = {"images": images}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "lines", "exec"), names)
    return names["y"], printed.getvalue().strip()


@pytest.mark.parametrize(
    ("format", "kind"),
    slow_except(
        itertools.product(["fp32", "fp16", "dynamic", "int8"], ["torch", "caffe"]),
        [("fp32", "torch"), ("int8", "caffe")],
    ),
)
def test_classes_in_all_formats(tmp_path, format, kind):
    model, preprocessing = network(), Preprocessing(kind)
    many = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3))
    metadata = Metadata("net", LABELS, (8, 8, 3), preprocessing, inside=False, probabilities=False)
    options = {"calibration": preprocessing.apply(many).numpy()} if format == "int8" else {}
    path = export_tflite(model, tmp_path / f"{format}.tflite", format=format, metadata=metadata, **options)
    expected = np.asarray(model(preprocessing.apply(IMAGE[np.newaxis])))[0]
    # `caffe` takes blue first, and the lines say so.
    given = IMAGE[..., ::-1] if kind == "caffe" else IMAGE
    found, printed = run(described(path), given)
    reach = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=reach * {"fp32": 1e-5, "fp16": 1e-2}.get(format, 0.1))
    assert printed == LABELS[found.argmax()]
    assert ("blue first" in python_lines(described(path))) == (kind == "caffe")


def test_preprocessing_inside_takes_pixels(tmp_path):
    model, preprocessing = network(), Preprocessing("scale_0_1")
    inside = serving_model(model, preprocessing_layers=preprocessing.layers(), input_dtype="uint8")
    metadata = Metadata("net", LABELS, (8, 8, 3), preprocessing, inside=True, probabilities=False)
    found, _ = run(described(export_tflite(inside, tmp_path / "fp32.tflite", metadata=metadata)), IMAGE)
    np.testing.assert_allclose(found, np.asarray(model(IMAGE[np.newaxis] / 255))[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "activation", "outputs", "labels", "answer"),
    [
        ("binary", None, 1, ("no", "yes"), lambda y: ("no", "yes")[int(y[0] > 0)]),
        ("binary", "sigmoid", 1, ("no", "yes"), lambda y: ("no", "yes")[int(y[0] > 0.5)]),
        ("multilabel", "sigmoid", 4, LABELS, lambda y: str([LABELS[one] for one in range(4) if y[one] > 0.5])),
        ("regression", None, 2, ("age", "size"), lambda y: str(dict(zip(("age", "size"), y.tolist(), strict=True)))),
    ],
)
def test_other_tasks(tmp_path, task, activation, outputs, labels, answer):
    model = network(outputs, activation)
    metadata = Metadata("net", labels, (8, 8, 3), Preprocessing(), False, activation is not None, task=task)
    found, printed = run(described(export_tflite(model, tmp_path / "f.tflite", metadata=metadata)), IMAGE)
    np.testing.assert_allclose(found, np.asarray(model(IMAGE[np.newaxis]))[0], rtol=1e-4, atol=1e-5)
    assert printed == answer(found)


def test_pixels_and_files_without_metadata(tmp_path):
    model = network(3, per_pixel=True)
    metadata = Metadata("net", ("a", "b", "c"), (8, 8, 3), Preprocessing(), False, False)
    found, printed = run(described(export_tflite(model, tmp_path / "map.tflite", metadata=metadata)), IMAGE)
    assert printed == str(found.argmax(-1))
    plain = described(export_tflite(network(), tmp_path / "plain.tflite"))
    found, printed = run(plain, IMAGE)
    assert printed == str(found)
    assert "num_labels" not in plain


def test_several_inputs_and_outputs(tmp_path):
    photo, number = keras.Input((8, 8, 3), name="photo"), keras.Input((2,), name="number")
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(photo), number])
    outputs = {"a": keras.layers.Dense(3, name="a")(x), "b": keras.layers.Dense(2, name="b")(x)}
    model = randomize(keras.Model({"photo": photo, "number": number}, outputs))
    file = described(export_tflite(model, tmp_path / "two.tflite"))
    values = np.array([0.5, -1.0], np.float32)
    by_size = {192: IMAGE, 2: values}
    found, printed = run(file, *(by_size[int(np.prod(one["shape"]))] for one in file["inputs"]))
    expected = {key: np.asarray(each)[0] for key, each in model({"photo": IMAGE[None], "number": values[None]}).items()}
    assert any(each.shape == found.shape and np.allclose(each, found, rtol=1e-4) for each in expected.values())
    assert len(printed.splitlines()) == 2


def test_paths_and_names_of_all_characters(tmp_path):
    folder = tmp_path / '\U0001f600 "quoted" é'
    folder.mkdir()
    path = export_tflite(network(), folder / "fp32.tflite")
    found, printed = run(described(path), IMAGE)
    assert printed == str(found)
    file = deployable("a")
    outputs = [{**file["outputs"][0], "name": name} for name in ("\U0001f600", "b")]
    assert 'print("\U0001f600", y)' in python_lines({**file, "outputs": outputs})


def test_lines_for_android():
    lines = kotlin_lines(deployable("runs/mine/export/int8.tflite", integers=True))
    assert '"int8.tflite"' in lines
    assert "val given0 = ByteArray(192)  // 1x8x8x3, number = 0.5 * (integer - -3)" in lines
    assert "inputs[0].writeInt8(given0)" in lines
    assert "outputs[0].readInt8()" in lines
    assert "FloatArray(192)" in kotlin_lines(deployable("fp32.tflite"))


def test_a_report_has_lines_for_each_file():
    report = build_report(
        deploy={"fp32": deployable("a/fp32.tflite"), "int8": deployable("b/int8.tflite", integers=True)}
    )
    first, second = make_snippets(report)
    assert (first.format, second.path) == ("fp32", "b/int8.tflite")
    assert second.facts[0] == ("input", "int8 1x8x8x3, number = 0.5 * (integer - -3)")
    assert ("from pixels 0 to 255", "times 0.1, 0.2, 0.3, plus -1") in first.facts
    assert make_snippets(build_report()) == make_snippets({}) == []


@pytest.mark.parametrize("has_array", [False, True])
def test_the_page_tells_what_microcontrollers_need(tmp_path, has_array):
    micro = {"flash": 12_345, "arena": 6_789, "planned": 6_000, "kept": 789, "is_measured": True, "operators": ["Add"]}
    metrics = {"bytes": 13_000, "metric": "accuracy", "score": 0.9, "micro": micro if has_array else None}
    report = build_report(export={"int8": metrics}, deploy={"int8": deployable("export/int8.tflite", integers=True)})
    text = render_html(report, tmp_path / "report.html").read_text(encoding="utf-8")
    for told in ("export/int8.h", "export/int8.cc", "12,345 bytes", "6,789 bytes, measured"):
        assert (told in text) == has_array
    assert ("--c_array" in text) != has_array
    assert "docs/" not in text
