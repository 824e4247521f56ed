"""Several workers: what they tell each other, and that they train as one process does."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.interruption import EXIT_CODE, LOST_CODE
from tas_tf.training.checkpoint import saved_progress
from tas_tf.training.strategy import make_strategy
from tests import team

_TOGETHER = ("talk", "train_teacher", "train_student", "search")
_SECONDS = 600  # only if they wait for each other for ever


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as content:
        return dict(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of two workers."""
    folder = tmp_path_factory.mktemp("team")
    processes = team.start(["-m", "tests.team", str(folder), *_TOGETHER], stderr=subprocess.PIPE)
    end(processes, 0, 0)
    return folder


def test_a_process_alone_is_the_chief():
    assert (workers.count(), workers.number(), workers.is_chief()) == (1, 0, True)
    assert workers.once(lambda: 3) == 3
    assert not workers.any_wants(False)
    with pytest.raises(UserError):
        workers.on_chief(make_strategy)("none")


def test_results_errors_values_and_requests_reach_all_workers(folder):
    for number in range(2):
        found = read(folder / f"talk_{number}.npz")
        assert found["shared"].tolist() == [0.0, 5.0]
        assert found["noted"] == (2, 1)[number]


@pytest.mark.parametrize(("name", "tolerance"), [("train_teacher", 1e-5), ("train_student", 1e-4), ("search", 1e-5)])
def test_workers_train_as_one_process_does(folder, name, tolerance):
    chief, other = (read(folder / f"{name}_{number}.npz") for number in range(2))
    alone = getattr(team, name)(make_strategy("one_device"), folder)
    assert set(chief) == set(other) == set(alone)
    for each, value in alone.items():
        np.testing.assert_array_equal(chief[each], other[each], err_msg=each)
        np.testing.assert_allclose(chief[each], value, atol=tolerance, rtol=tolerance, err_msg=each)


def smooth(model: keras.Model) -> keras.Model:
    """The network with tanh for ReLU, at whose kink a difference in the last digit may grow to any size."""

    def replace(layer: keras.Layer) -> keras.Layer:
        is_relu = isinstance(layer, keras.layers.ReLU)
        return keras.layers.Activation("tanh", name=layer.name) if is_relu else layer

    return keras.models.clone_model(model, clone_function=replace)


@pytest.mark.slow
def test_a_pipeline_of_workers_ends_as_one_process_does(tmp_path):
    """Teacher, race, distillation, fine-tuning for 8 bits, export and report, without batch normalisation."""
    model = tmp_path / "mine.keras"
    smooth(team.adapted(normalised=False)).save(model)
    flags = [
        *("--dataset=digits", "--train_limit=200", "--batch_size=32", "--lr=0.1", "--train_model", f"--model={model}"),
        *("--teacher_epochs=15", "--teacher_warmup=1", "--proposals=3", "--race_effort=0.5", "--student_epochs=2"),
        *("--formats=fp32,qat_int8", "--qat_epochs=1", "--rivals=uniform", "--test_limit=64", "--latency_rounds=2"),
        "--progress=none",
    ]
    together, alone = tmp_path / "together", tmp_path / "alone"
    command = ["-m", "trainers.pipeline", *flags]
    end(team.start([*command, "--strategy=multi_worker", f"--run_dir={together}"], stderr=subprocess.PIPE), 0, 0)
    end(team.start([*command, "--strategy=one_device", f"--run_dir={alone}"], count=1, stderr=subprocess.PIPE), 0)
    for name in ("teacher", "student", "rivals/uniform/student"):
        ours, theirs = (keras.saving.load_model(run / name / "model.keras").weights for run in (together, alone))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5, err_msg=f"{name}: {one.path}")
    ours, theirs = (json.loads((run / "search" / "metrics.json").read_text()) for run in (together, alone))
    assert ours["proposal"] == theirs["proposal"]
    laps = [[(lap["proposal"], lap["round"]) for lap in raced["laps"]] for raced in (ours, theirs)]
    assert laps[0] == laps[1]
    losses = [[lap["loss"] for lap in raced["laps"]] for raced in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ours, theirs = (json.loads((run / "qat_student" / "metrics.json").read_text()) for run in (together, alone))
    # Steps of 8 bits make differences larger: one or two of 360 images may change sides.
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=2.5 / 360)
    assert (together / "report.html").exists()


def run_search(run_dir: Path, model: Path) -> list[subprocess.Popen]:
    """Starts the search by two workers, which save after every step."""
    flags = [
        *("--dataset=digits", "--train_limit=200", "--batch_size=32", "--budget=macs:0.5", "--recipe=paper"),
        *("--search_epochs=6", "--arch_lr=0.5", "--progress=none", "--strategy=multi_worker", "--train_model"),
        *("--checkpoint_minutes=1e-9", f"--model={model}", f"--run_dir={run_dir}"),
    ]
    return team.start(["-m", "trainers.search", *flags], stderr=subprocess.PIPE)


def end(processes: list[subprocess.Popen], *codes: int) -> None:
    """Waits for all workers, and checks their exit codes."""
    errors = [process.communicate(timeout=_SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == list(codes), "\n".join(errors)


def result_of(run_dir: Path) -> dict[str, Any]:
    metrics = json.loads((run_dir / "search" / "metrics.json").read_text())
    probabilities = json.loads((run_dir / "search" / "probabilities.json").read_text())
    return {**metrics, "seconds": 0, "probabilities": probabilities}


def saved_steps(run_dir: Path) -> int:
    progress = saved_progress(run_dir / "search" / "checkpoints")
    return 0 if progress is None else 3 * progress.epochs + progress.steps


def wait_for(processes: list[subprocess.Popen], run_dir: Path, step: int) -> None:
    """Waits until a step has been saved and one of these workers has saved one, or until they have ended."""
    step = max(step, saved_steps(run_dir) + 1)
    while all(process.poll() is None for process in processes) and saved_steps(run_dir) < step:
        time.sleep(0.01)


@pytest.mark.slow
def test_a_search_whose_workers_are_killed_ends_as_an_uninterrupted_one(tmp_path):
    """At five random moments one worker is killed, which ends the other; the sixth time one gets SIGTERM."""
    model = tmp_path / "mine.keras"
    team.adapted(normalised=True).save(model)
    end(run_search(tmp_path / "whole", model), 0, 0)
    random = np.random.default_rng(0)
    killed = tmp_path / "killed"
    for number, step in enumerate(sorted(random.choice(range(1, 13), 6, replace=False))):
        processes, victim = run_search(killed, model), int(random.integers(2))
        wait_for(processes, killed, step)
        processes[victim].send_signal(signal.SIGTERM if number == 5 else signal.SIGKILL)
        codes = [EXIT_CODE, EXIT_CODE]
        if number < 5:
            codes = [LOST_CODE, LOST_CODE]
            codes[victim] = -signal.SIGKILL
        end(processes, *codes)
    end(run_search(killed, model), 0, 0)
    assert result_of(killed) == result_of(tmp_path / "whole")
