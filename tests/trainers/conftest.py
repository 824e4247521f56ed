"""Runs commands in this process, and provides a finished run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from tas_tf.pipeline.training import StudentStep
from tests.commands import Outcome, run_command
from trainers import pipeline


@pytest.fixture(scope="session")
def command() -> Callable[..., Outcome]:
    """See `run_command`."""
    return run_command


@pytest.fixture
def untimed(monkeypatch) -> None:
    """Plans without timing a step of training, which has to be traced; `test_pipeline.py` has one with it."""
    monkeypatch.setattr("tas_tf.pipeline.plan._time_training", lambda space, workspace: (0.01, 1.0))


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """Flags of a run that takes seconds; tests add `--model`."""
    return [
        "--train_limit=200",
        "--preprocess=standardise",
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
def interrupted(tmp_path_factory, trained_tiny, tiny_flags) -> Interrupted:
    """Teacher, search, student, a rival, export and report of the user's own file."""
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = [f"--model={trained_tiny}", "--rivals=uniform", *tiny_flags]
    with mock.patch.object(StudentStep, "work", side_effect=KeyboardInterrupt):
        first = run_command(pipeline, f"--run_dir={path}", *arguments)
    second = run_command(pipeline, f"--run_dir={path}", *arguments)
    return Interrupted(path, arguments, first, second)


@pytest.fixture
def finished(interrupted, tmp_path) -> Path:
    """A copy of the finished run, which a test may change."""
    assert interrupted.second.code == 0, interrupted.second
    return Path(shutil.copytree(interrupted.path, tmp_path / "copy"))
