"""A network that reads an image and numbers of a table."""

from __future__ import annotations

import json
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import tas_tf
from tas_tf.deploy.metadata import read_metadata
from tests.photos import TEST, TRAIN, Photos, flags_for_photos
from trainers import describe, distill, pipeline, teacher


class Summed(NamedTuple):
    """A network that adds the two numbers which it reads to what it sees, its data, and flags that name both."""

    model: keras.Model
    test: dict[str, np.ndarray]
    total: np.ndarray
    arguments: list[str]


@pytest.fixture(scope="module")
def summed(tmp_path_factory) -> Summed:
    photos = Photos()
    folder = tmp_path_factory.mktemp("summed")
    lines = ["path,split,bonus_1,bonus_2,total"]
    rng = np.random.default_rng(0)
    bonus = rng.normal(size=(TRAIN + TEST, 2)).round(3)
    total = photos.values[:, 0] + bonus.sum(axis=1)
    for number, pixels in enumerate(photos.pixels):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        numbers = ",".join(map(str, (*bonus[number], total[number])))
        lines.append(f"{number}.png,{'train' if number < TRAIN else 'test'},{numbers}")
    (folder / "labels.csv").write_text("\n".join(lines))
    pixels, table = keras.Input((8, 8, 1), name="pixels"), keras.Input((2,), name="bonus")
    x = layers.ReLU(name="relu1")(layers.Conv2D(8, 3, padding="same", name="first")(pixels))
    x = layers.Flatten(name="flat")(layers.ReLU(name="relu2")(layers.Conv2D(12, 3, strides=2, name="second")(x)))
    model = keras.Model({"pixels": pixels, "bonus": table}, layers.Dense(1)(layers.Concatenate()([x, table])))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    inputs = {"pixels": photos.network_input(), "bonus": bonus.astype("float32")}
    train, test = ({name: one[part] for name, one in inputs.items()} for part in (slice(TRAIN), slice(TRAIN, None)))
    keras.utils.set_random_seed(0)
    model.fit(train, total[:TRAIN], batch_size=32, epochs=12, verbose=0)
    model.save(folder / "sum.keras")
    return Summed(model, test, total[TRAIN:], [f"--model={folder}/sum.keras", f"--dataset=csv:{folder}/labels.csv"])


@pytest.fixture
def arguments(summed, tiny_flags) -> list[str]:
    """The preprocessing is found by scores."""
    return [*summed.arguments, *(flag for flag in flags_for_photos(tiny_flags) if not flag.startswith("--preprocess"))]


@pytest.mark.usefixtures("untimed")
def test_an_image_and_a_table(command, summed, arguments, tmp_path):
    run = f"--run_dir={tmp_path}/run"
    outcome = command(teacher, run, *arguments)
    assert outcome.code == 0, outcome
    assert "that the network reads: bonus_1, bonus_2." in outcome.out
    found = json.loads((tmp_path / "run/teacher/metrics.json").read_text())
    errors = np.abs(summed.model.predict(summed.test, verbose=0)[:, 0] - summed.total)
    assert found["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    again = command(teacher, f"--flagfile={tmp_path}/run/flags.cfg", run)
    assert "is up to date: test mean absolute error" in again.out, again
    planned = command(pipeline, run, *arguments, "--dry_run")
    assert planned.code == 0, planned
    described = command(describe, *summed.arguments, "--image_size=8")
    assert described.code == 0, described
    for more, message in (
        (["--image_size=16"], "`--model` takes images of 8x8x1, but those of"),
        (["--preprocessing_inside"], "`--preprocessing_inside` needs a network with one input"),
        (
            ["--dataset=digits"],
            "`--dataset` must be csv:FILE with columns for the inputs of the network, bonus_1,",
        ),
        (["--formats=qat_int8"], "It takes images alone. Received: 2 inputs."),
    ):
        wrong = command(pipeline, f"--run_dir={tmp_path}/wrong", *arguments, *more)
        assert (wrong.code, "Traceback" in wrong.err) == (1, False), wrong
        assert message in wrong.err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_a_student_that_reads_an_image_and_a_table(command, summed, arguments, tmp_path):
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", *arguments)
    assert outcome.code == 0, outcome
    found = json.loads((tmp_path / "run/report.json").read_text())
    errors = np.abs(summed.model.predict(summed.test, verbose=0)[:, 0] - summed.total)
    assert found["teacher"]["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    expected = student.predict(summed.test, verbose=0)
    for format in ("fp32", "int8"):
        outputs = tas_tf.TFLiteModel(tmp_path / f"run/export/{format}.tflite").predict(summed.test)
        np.testing.assert_allclose(outputs, expected, atol=(1e-4 if format == "fp32" else 0.1) * np.ptp(expected))
        score = np.abs(outputs[:, 0] - summed.total).mean()
        assert found["student"]["tflite"][format]["score"] == pytest.approx(score, rel=1e-3)
    assert read_metadata(tmp_path / "run/export/int8.tflite")["inputs"] == {"bonus": [2], "pixels": [8, 8, 1]}
    again = command(distill, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--model=")
    assert "is up to date: test mean absolute error" in again.out, again
