"""The search as a command: killed and resumed, repeatable, rejected before it costs time."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tests.commands import quiet_environment
from tests.digits import tiny_space
from trainers import search

ROOT = Path(__file__).parents[2]


#: The search, killed at the first moment from which it can go on, however fast the machine is.
KILLED = """
import os, runpy, signal
from tas_tf.training.checkpoint import Checkpoints

save = Checkpoints.save

def save_and_die(self, progress):
    save(self, progress)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
runpy.run_module("trainers.search", run_name="__main__", alter_sys=True)
"""


def start(
    run: Path, trained_tiny: Path, tiny_flags: list[str], *arguments: str, program: Sequence[str]
) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            *program,
            f"--run_dir={run}",
            f"--model={trained_tiny}",
            *tiny_flags,
            *arguments,
        ],
        cwd=ROOT,
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(run: Path) -> list[dict]:
    shape, metrics = (json.loads((run / "search" / name).read_text()) for name in ("shape.json", "metrics.json"))
    metrics.pop("seconds")
    return [shape, metrics]


@pytest.mark.slow
def test_a_killed_search_goes_on_and_is_repeatable(tmp_path, trained_tiny, tiny_flags):
    arguments = ["--search_epochs=4", "--deterministic", "--arch_lr=0.1"]
    killed = start(tmp_path / "killed", trained_tiny, tiny_flags, *arguments, program=["-c", KILLED])
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    assert (tmp_path / "killed/search/checkpoints/progress.json").exists()
    assert not (tmp_path / "killed/search/shape.json").exists()
    resumed, whole = (
        start(tmp_path / name, trained_tiny, tiny_flags, *arguments, program=["-m", "trainers.search"])
        for name in ("killed", "whole")
    )
    for process in (resumed, whole):
        out, err = process.communicate()
        assert (process.returncode, err) == (0, ""), err
        assert "Found: " in out
        assert "warning: The width distributions have not converged" in out.replace("\n", " ")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.fixture(scope="module")
def searched(command, tmp_path_factory, trained_tiny, tiny_flags) -> Path:
    """A search that was run before any teacher was there."""
    run = tmp_path_factory.mktemp("searched") / "run"
    outcome = command(search, f"--run_dir={run}", f"--model={trained_tiny}", *tiny_flags)
    assert outcome.code == 0, outcome
    return run


def test_it_needs_no_teacher_and_ends_with_what_comes_next(command, searched, trained_tiny, tiny_flags):
    assert sorted(path.name for path in searched.iterdir()) == ["flags.cfg", "logs", "search"]
    metrics = json.loads((searched / "search/metrics.json").read_text())
    assert metrics["shape_macs"] <= metrics["budget_macs"]
    assert {"width_entropy", "depth_entropy", "held_out_accuracy", "warnings", "history", "seconds"} <= set(metrics)
    before = (searched / "search/metrics.json").read_bytes()
    outcome = command(search, f"--run_dir={searched}", f"--model={trained_tiny}", *tiny_flags)
    assert "is up to date. Next: python -m trainers.distill" in outcome.out.replace("\n", " ")
    assert (searched / "search/metrics.json").read_bytes() == before


@pytest.mark.slow
def test_other_seeds_are_other_searches(command, searched, trained_tiny, tiny_flags):
    outcome = command(search, f"--run_dir={searched}", f"--model={trained_tiny}", *tiny_flags, "--seed=1")
    assert outcome.code == 1
    assert "seed: was 0, now 1" in outcome.err
    before = results(searched)
    outcome = command(
        search, f"--run_dir={searched}", f"--model={trained_tiny}", *tiny_flags, "--seed=1", "--overwrite"
    )
    assert outcome.code == 0, outcome
    assert results(searched)[1]["history"]["expected_macs"] != before[1]["history"]["expected_macs"]


def test_a_budget_out_of_reach_is_refused_before_data_is_read(command, tmp_path, trained_tiny, tiny_flags):
    with mock.patch.object(Task, "load", side_effect=AssertionError("data was loaded")):
        outcome = command(
            search,
            f"--run_dir={tmp_path}/run",
            f"--model={trained_tiny}",
            *tiny_flags,
            "--budget=params:0.001",
            "--resize=squash",
        )
    assert outcome.code == 1
    assert "Expected at least params:0." in outcome.err
    assert not (tmp_path / "run").exists()


def test_another_network_than_the_teacher_is_refused(command, interrupted, tmp_path, tiny_flags):
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}"]
    outcome = command(search, *places, "--model=resnet8", *tiny_flags)
    assert outcome.code == 1
    assert "`--model`: resnet8 isn't the network of the teacher" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untimed")
def test_dry_run_writes_nothing(command, tmp_path, trained_tiny, tiny_flags):
    outcome = command(search, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags, "--dry_run")
    assert outcome.code == 0, outcome
    assert "search" in outcome.out
    assert f"Budget: {CostModel(tiny_space()).full // 2:,} macs" in outcome.out.replace("\n", " ")
    assert not (tmp_path / "run").exists()
    outcome = command(
        search, f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", *tiny_flags, "--dry_run", "--budget=macs:0.01"
    )
    assert outcome.code == 1


@pytest.mark.slow
def test_cifar10_of_tensorflow_datasets(command, tmp_path, tiny_flags):
    """Random images replace the real ones, which need a download."""
    builder = tfds.builder("cifar10", data_dir=tmp_path)
    template = tfds.core.ShardedFileTemplate(
        data_dir=builder.data_dir, dataset_name="cifar10", filetype_suffix="tfrecord"
    )
    infos = [
        tfds.core.SplitInfo(name=split, shard_lengths=[200], num_bytes=1, filename_template=template)
        for split in ("train", "test")
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    Path(builder.data_dir).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)
    arguments = [
        "--dataset=cifar10",
        f"--data_dir={tmp_path}",
        "--model=resnet8",
        "--train_limit=64",
        "--batch_size=16",
    ]
    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(num_examples=200, data_dir=str(tmp_path), policy=policy):
        outcome = command(search, f"--run_dir={tmp_path}/run", *tiny_flags, *arguments, "--pad_crop=2", "--flip")
    assert outcome.code == 0, outcome
    shape = json.loads((tmp_path / "run/search/shape.json").read_text())
    assert shape["network"] == "resnet8"
    history = json.loads((tmp_path / "run/search/metrics.json").read_text())["history"]
    assert np.isfinite(history["expected_macs"]).all()
