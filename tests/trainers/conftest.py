"""Commands run in this process, and a small trained network of a user's to run them on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import keras
import pytest
from absl import flags
from absl.testing import flagsaver

from tas_tf.data.task import Task
from tests.networks import classify, conv_bn, residual
from trainers import command as command_module


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Runs a command as its own process would: flags start from their defaults."""

    def run(module: ModuleType, *arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        capsys.readouterr()
        with flagsaver.flagsaver():
            for name in flags.FLAGS:
                flags.FLAGS[name].present = 0
            with pytest.raises(SystemExit) as ended:
                command_module.run(module.main)
        keras.mixed_precision.set_global_policy("float32")
        captured = capsys.readouterr()
        return Outcome(ended.value.code, captured.out, captured.err)

    return run


def tiny_network(activation: str | None = "softmax", **input_options) -> keras.Model:
    """A residual net of one stage for digits."""
    images = keras.Input((8, 8, 1), name="pixels")
    x = conv_bn(images, 8, strides=2)
    for _ in range(2):
        x = residual(x, 8, 6)
    return keras.Model(images, classify(x, 10, activation), name="tiny")


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Path:
    """A classifier of digits that ends in softmax, trained and saved by plain Keras, compiled with an optimizer."""
    keras.utils.set_random_seed(0)
    model = tiny_network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.01
    dataset, steps = Task.load("digits").training(64)
    model.fit(dataset(0), epochs=4, steps_per_epoch=steps, verbose=0)
    path = tmp_path_factory.mktemp("user") / "tiny.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_flags(tiny_file) -> list[str]:
    """Flags of a run that takes seconds."""
    return [
        f"--model={tiny_file}",
        "--train_limit=200",
        "--batch_size=32",
        "--search_epochs=1",
        "--student_epochs=1",
        "--student_warmup=0",
        "--lr=0.05",
        "--held_out_limit=64",
        "--calibration_batches=1",
        "--progress=none",
        "--test_limit=64",
    ]
