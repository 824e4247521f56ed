"""A user's network with a single decision, from a folder of two classes to checked files."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tas_tf.data.settings import DataSettings
from tas_tf.data.task import Task
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import read_metadata
from tas_tf.runs.config import NetworkSettings, RunConfig
from tas_tf.runs.workspace import Workspace
from trainers import describe, pipeline


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Zeros and ones of the digits."""
    folder, source = tmp_path_factory.mktemp("data"), Task.load("digits").source
    for split, count in (("train", 60), ("test", 20)):
        labels = source.labels(split)
        for label, name in enumerate(("one", "zero")):
            (folder / split / name).mkdir(parents=True)
            for row in np.flatnonzero(labels == 1 - label)[:count]:
                Image.fromarray(source.images(split)[row, ..., 0]).save(folder / split / name / f"{row}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Says whether a digit is a zero; ends in one logit and was compiled with its loss."""
    source = Task.load("digits").source
    rows = np.flatnonzero(source.labels("train") < 2)
    images, labels = source.images("train")[rows] / 255.0, source.labels("train")[rows] == 0
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(pixels)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dense(1)(layers.Flatten()(layers.ReLU()(layers.Conv2D(8, 3, name="second")(x))))
    network = keras.Model(pixels, x, name="is_zero")
    network.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
    network.fit(images, labels.astype("float32"), epochs=8, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("model") / "is_zero.keras"
    network.save(path)
    return path


@pytest.mark.slow
def test_a_single_decision(command, photos, model, tmp_path, tiny_flags):
    data = [f"--dataset=folder:{photos}", "--image_size=8", "--train_limit=100", "--preprocess=scale_0_1"]
    outcome = command(
        pipeline, f"--run_dir={tmp_path}/run", f"--model={model}", *tiny_flags, *data, "--formats=fp32,int8"
    )
    assert outcome.code == 0, outcome
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["teacher"]["accuracy"] > 0.95
    assert 0.5 <= report["student"]["accuracy"] <= 1
    for name in ("teacher", "student"):
        assert (report[name]["task"], report[name]["metric"]) == ("binary", "accuracy")
        assert {"roc_auc", "balanced_accuracy"} <= report[name].keys()
        assert report[name]["tflite"]["fp32"]["accuracy"] == pytest.approx(report[name]["accuracy"])
    behaviour = json.loads((tmp_path / "run/behaviour/metrics.json").read_text())
    assert (behaviour["classes"], behaviour["images"]) == (["one", "zero"], 40)
    right = sum(number for true, predicted, number in behaviour["student"]["confusion"] if true == predicted)
    assert right / 40 == pytest.approx(report["student"]["accuracy"])
    # Later commands know the task from the run, without the user's file.
    task = Workspace.open(
        RunConfig(
            run_dir=str(tmp_path / "run"),
            data=DataSettings(image_size=8, preprocess="scale_0_1", dataset=f"folder:{photos}"),
        )
    ).task
    assert task.objective.task == "binary"
    file = tmp_path / "run/export/fp32.tflite"
    assert (read_metadata(file)["task"], read_metadata(file)["labels"]) == ("binary", ["one", "zero"])
    assert TFLiteModel(file).predict(np.zeros((3, 8, 8, 1), np.float32)).shape == (3, 1)


def test_image_files_get_the_size_that_the_model_takes(command, photos, model, tmp_path, tiny_flags):
    data = [f"--model={model}", f"--dataset=folder:{photos}", "--train_limit=100", "--preprocess=scale_0_1"]
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", *tiny_flags, *data, "--dry_run")
    assert outcome.code == 0, outcome
    described = command(describe, *data[:2])
    assert described.code == 0, described
    settings = DataSettings(dataset=f"folder:{photos}", preprocess="scale_0_1")
    network = NetworkSettings(model=str(model))
    config = RunConfig(run_dir=str(tmp_path / "run"), data=settings, network=network)
    assert Workspace.open(config).task.image_shape == (8, 8, 1)
    (tmp_path / "run/teacher").mkdir(parents=True)
    shutil.copy(model, tmp_path / "run/teacher/model.keras")
    later = Workspace.open(replace(config, network=NetworkSettings()))
    assert later.config.data.image_size == 8


def test_what_does_not_fit(command, photos, model, tmp_path, tiny_flags):
    outcome = command(describe, f"--model={model}")
    assert outcome.code == 0, outcome
    for flags, message in (
        ([f"--model={model}", "--dataset=digits"], "`--dataset` must have 2 classes. Received: 10"),
        ([f"--model={model}", f"--dataset=folder:{photos}", "--task=regression"], "doesn't suit regression"),
        (["--model=resnet8", "--task=binary"], "`--task=binary` needs a `--model` of your own"),
    ):
        outcome = command(
            pipeline, f"--run_dir={tmp_path}/run", *tiny_flags, *flags, "--image_size=8", "--train_limit=100"
        )
        assert outcome.code != 0
        assert message in outcome.err
        assert "Traceback" not in outcome.err
