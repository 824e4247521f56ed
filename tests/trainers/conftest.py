"""Commands run in this process, and a run that is finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import keras
import pytest

from tas_tf.data.task import Task
from tests.commands import Outcome, run_command
from tests.digits import tiny_network
from trainers import pipeline


@pytest.fixture(scope="session")
def command() -> Callable[..., Outcome]:
    """See `run_command`."""
    return run_command


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Path:
    """A classifier of digits that ends in softmax, trained and saved by plain Keras, compiled with an optimizer."""
    keras.utils.set_random_seed(0)
    model = tiny_network()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    dataset, steps = Task.load("digits").training(64)
    model.fit(dataset(0), epochs=4, steps_per_epoch=steps, verbose=0, shuffle=False)
    path = tmp_path_factory.mktemp("user") / "tiny.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """Flags of a run that takes seconds; `--model` comes beside."""
    return [
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


class Interrupted(NamedTuple):
    """A run that was interrupted between search and student, then finished."""

    path: Path
    flags: list[str]
    first: Outcome
    second: Outcome


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory, tiny_file, tiny_flags) -> Interrupted:
    """Teacher, search, student, a rival, export and report of the user's own file."""
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = [f"--model={tiny_file}", "--rivals=uniform", *tiny_flags]
    with mock.patch.object(pipeline, "run_distill", side_effect=KeyboardInterrupt):
        first = run_command(pipeline, f"--run_dir={path}", *arguments)
    second = run_command(pipeline, f"--run_dir={path}", *arguments)
    return Interrupted(path, arguments, first, second)


@pytest.fixture
def finished(interrupted, tmp_path) -> Path:
    """A copy of the finished run to do as one likes with."""
    assert interrupted.second.code == 0, interrupted.second
    return Path(shutil.copytree(interrupted.path, tmp_path / "copy"))
