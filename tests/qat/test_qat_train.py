"""From a trained classifier to the same one for 8 bits."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.qat import finetune
from tas_tf.qat import train as train_module
from tas_tf.qat.quantise import QatError
from tas_tf.qat.saving import load_quantised
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.qat.train import check_quantisable, train_quantised
from tas_tf.space.space import SearchSpace
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import logits_of
from tas_tf.zoo.loading import load_file
from tests.networks import classify, conv_bn, make, randomize

SETTINGS = FineTuneSettings(epochs=2, batch_size=64, lr=0.005, seed=3)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load("digits", train_limit=256)


def train(model: keras.Model, task: Task, path: Path, **options) -> dict:
    options = {"strategy": tf.distribute.get_strategy(), "verbose": 0, **options}
    return train_quantised(model, task, SETTINGS, path, **options)


def accuracy(model: keras.Model, task: Task) -> float:
    images, labels = task.test_arrays()
    return float((np.asarray(model(images)).argmax(-1) == labels).mean())


def logged_epochs(folder: Path) -> dict[str, set[int]]:
    """Numbers of the epochs whose loss was logged, by what was trained."""
    found: dict[str, set[int]] = {}
    for file in folder.rglob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if any(value.tag == "loss/loss" for value in event.summary.value):
                found.setdefault(file.relative_to(folder).parts[0], set()).add(event.step)
    return found


@pytest.mark.slow
def test_metrics_tell_quantisation_from_more_training(trained_tiny, task, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "time", SimpleNamespace(monotonic=itertools.count(1.0, 2.5).__next__))
    model = load_file(trained_tiny)
    before, original = model.get_weights(), accuracy(model, task)
    teacher = logits_of(model, SearchSpace.from_graph(Graph.from_model(model)))
    options = {"teacher": teacher, "float_control": True, "log_dir": tmp_path / "logs"}
    metrics = train(model, task, tmp_path / "network", **options)
    assert logged_epochs(tmp_path / "logs") == {"float": {0, 1}, "quantised": {0, 1}}  # equally long
    assert metrics.keys() == {"accuracy", "calibrated_accuracy", "float_accuracy", "epochs", "seed", "seconds"}
    assert (metrics["epochs"], metrics["seed"]) == (2, 3)
    assert metrics["seconds"] == 2.5
    assert original > 0.8
    for name in ("accuracy", "calibrated_accuracy", "float_accuracy"):
        assert metrics[name] == pytest.approx(original, abs=0.04), name
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = load_quantised(tmp_path / "network", (8, 8, 1))
    assert accuracy(loaded, task) == pytest.approx(metrics["accuracy"], abs=1e-6)
    images, _ = task.test_arrays(20)
    # It ends in softmax, as the model does.
    np.testing.assert_allclose(np.sum(loaded(images), axis=-1), 1, rtol=1e-5)


def small_network() -> keras.Model:
    """Ends in logits."""
    images = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(6, 3, strides=2, name="conv")(images))
    return randomize(keras.Model(images, classify(layers.ReLU()(x), 10)))


class Interrupt(tf_keras.callbacks.Callback):
    """Stops when a second epoch begins for the second time."""

    def __init__(self):
        super().__init__()
        self._met = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._met += epoch == 1
        if self._met == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_training_interrupted_in_its_control_goes_on(task, tmp_path, monkeypatch):
    expected = train(small_network(), task, tmp_path / "whole", float_control=True)
    options = {"float_control": True, "saving": Saving(tmp_path / "checkpoints")}
    interrupt = Interrupt()
    monkeypatch.setattr(finetune, "WritesScalars", lambda folder: interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(small_network(), task, tmp_path / "network", log_dir=tmp_path / "logs", **options)
    assert not (tmp_path / "network").exists()
    assert (tmp_path / "checkpoints/float").exists()
    metrics = train(small_network(), task, tmp_path / "network", **options)
    assert {**metrics, "seconds": 0} == {**expected, "seconds": 0}
    images, _ = task.test_arrays()
    found, wanted = (np.asarray(load_quantised(tmp_path / name, (8, 8, 1))(images)) for name in ("network", "whole"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(found.sum(-1) - 1).max() > 1e-2


@pytest.mark.slow
def test_on_two_replicas(task, tmp_path, two_replicas):
    model = small_network()
    with two_replicas.scope():
        teacher = logits_of(model, SearchSpace.from_graph(Graph.from_model(model)))
    metrics = train(model, task, tmp_path / "network", strategy=two_replicas, teacher=teacher)
    loaded = load_quantised(tmp_path / "network", (8, 8, 1))
    assert accuracy(loaded, task) == pytest.approx(metrics["accuracy"], abs=1e-6)
    # Its teacher being itself, it has little to learn but how to be rounded.
    images, _ = task.test_arrays()
    assert np.mean(np.asarray(loaded(images)).argmax(-1) == np.asarray(model(images)).argmax(-1)) > 0.5


@pytest.mark.slow
def test_without_a_control_there_is_none(task, tmp_path):
    metrics = train(small_network(), task, tmp_path / "network", saving=Saving(tmp_path / "checkpoints"))
    assert "float_accuracy" not in metrics
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["quantised"]


def test_what_cannot_be_trained_so_is_refused_before_any_training(task, tmp_path):
    check_quantisable(make("plain"))
    check_quantisable(make("arithmetic"))
    images = keras.Input((8, 8, 3))
    normalised = classify(keras.layers.LayerNormalization()(conv_bn(images, 6)))
    with pytest.raises(QatError, match=r"layer_normalization\w* \(LayerNormalization\)"):
        check_quantisable(keras.Model(images, normalised))
    with pytest.raises(UserError, match="a function that Keras 2 lacks"):
        check_quantisable(keras.Model(images, classify(keras.ops.square(conv_bn(images, 6)))))
