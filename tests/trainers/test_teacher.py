"""The teacher as a command trains it."""

import errno
import fcntl
import itertools
import json
import os
import signal
import weakref
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data import decodable, sources
from tas_tf.data.sources import load_source
from tas_tf.data.task import Task
from tas_tf.pipeline import training
from tas_tf.runs.workspace import Workspace
from tas_tf.training.checkpoint import saved_progress
from tas_tf.zoo.loading import load_file, load_network
from tests.networks import count_macs
from trainers import teacher


@pytest.mark.slow
def test_a_network_by_name_is_trained(command, tmp_path):
    arguments = [
        f"--run_dir={tmp_path}/run",
        "--model=resnet8",
        "--teacher_epochs=2",
        "--teacher_warmup=0",
        "--batch_size=64",
        "--l2=0",
        "--progress=lines",
    ]
    outcome = command(teacher, *arguments)
    assert outcome.code == 0, outcome
    assert "Epoch 2/2" in outcome.out
    assert "Next: python -m trainers.search" in outcome.out.replace("\n", " ")
    metrics = json.loads((tmp_path / "run/teacher/metrics.json").read_text())
    network = load_network("resnet8", image_size=8, channels=1)
    assert metrics["macs"] == count_macs(network)
    assert metrics["params"] == network.count_params()
    assert metrics["accuracy"] > 0.5
    model = keras.models.load_model(tmp_path / "run/teacher/model.keras")
    images, labels = Task.load("digits").test_arrays()
    accuracy = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert metrics["accuracy"] == pytest.approx(accuracy)
    # Its flagfile is the run: given nothing else, everything is up to date.
    outcome = command(teacher, f"--flagfile={tmp_path}/run/flags.cfg")
    assert outcome.code == 0, outcome
    assert "is up to date" in outcome.out.replace("\n", " ")
    outcome = command(teacher, f"--flagfile={tmp_path}/run/flags.cfg", "--teacher_epochs=3")
    assert outcome.code == 1
    assert "teacher_epochs: was 2, now 3" in outcome.err


@pytest.mark.parametrize("full", ["checkpoint", "record"])
def test_a_training_on_a_full_disk_ends_and_goes_on_when_there_is_room(command, tmp_path, trained_tiny, full):
    """Nothing is lost: it goes on from the checkpoint before, and ends as one that was never interrupted."""
    arguments = [f"--model={trained_tiny}", "--train_model", "--teacher_epochs=3", "--teacher_warmup=0"]
    arguments += ["--batch_size=32", "--train_limit=64", "--test_limit=64", "--preprocess=none", "--progress=none"]
    run, writes = tmp_path / "run", []

    def write(path, *rest):
        writes.append(path)
        if len(writes) == 2:
            if full == "checkpoint":
                raise tf.errors.ResourceExhaustedError(None, None, f"{path}: No space left on device")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        if full == "checkpoint":
            original = tf.train.Checkpoint.write
            real = lambda path, checkpoint: original(checkpoint, path)  # noqa: E731
            patch.setattr(tf.train.Checkpoint, "write", lambda self, path: write(path, self))
        else:
            real = os.replace
            patch.setattr(
                "os.replace", lambda one, other: (write if other.name == "progress.json" else real)(one, other)
            )
        outcome = command(teacher, f"--run_dir={run}", *arguments)
    assert outcome.code == 1
    assert "No space left on device. Everything finished before is kept." in outcome.err
    assert outcome.err.count("\n") == 1
    assert saved_progress(run / "teacher/checkpoints").epochs == 1
    assert not [*run.rglob(".partial-*"), *run.rglob("*temp*")]
    outcome = command(teacher, f"--run_dir={run}", *arguments)
    assert outcome.code == 0, outcome
    assert "teacher: continues after epoch 1." in outcome.out
    assert command(teacher, f"--run_dir={tmp_path}/whole", *arguments).code == 0
    ours, whole = (keras.models.load_model(path / "teacher/model.keras") for path in (run, tmp_path / "whole"))
    for one, other in zip(ours.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


DIGITS = """
import numpy as np
from tas_tf.data.task import Task

task, moved = Task.load("digits", train_limit=600), np.array([0, 1, 2, 3, 4, 6, 7, 8, 9, 5])

def arrays(data):
    images, labels = map(np.concatenate, zip(*data.as_numpy_iterator()))
    return images, moved[labels]

train, test = arrays(task.plain(task.indices)), arrays(task.test())
"""


@pytest.mark.parametrize("data", ["found", "given", "python"])
def test_classes_in_another_order_are_refused_before_anything_is_written(command, tmp_path, trained_tiny, data):
    """Two outputs of ten are exchanged, or half of the labels of a Python file are moved by one."""
    network, flags = trained_tiny, ["--train_limit=600"]
    order = "0, 1, 2, 3, 4, 6, 7, 8, 9, 5"
    if data == "python":
        (tmp_path / "digits.py").write_text(DIGITS)
        flags = [f"--dataset=python:{tmp_path}/digits.py"]
    else:
        model, network = load_file(trained_tiny), tmp_path / "exchanged.keras"
        chosen = [0, 1, 3, 2, *range(4, 10)]
        order = ", ".join(map(str, chosen))
        kernel, bias = model.get_layer("classifier").get_weights()
        model.get_layer("classifier").set_weights([kernel[:, chosen], bias[chosen]])
        model.save(network)
        flags += ["--preprocess=standardise"] if data == "given" else []
    outcome = command(teacher, f"--run_dir={tmp_path}/run", f"--model={network}", "--progress=none", *flags)
    assert outcome.code == 1, outcome
    assert f"utputs 0, 1, ... fit {order}: accuracy 0." in outcome.err
    assert ("With `--preprocess=standardise`" in outcome.err) == (data == "found")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [[], ["--preprocess=standardise"]], ids=["found", "given"])
def test_the_order_is_looked_for_once(command, tmp_path, trained_tiny, flags):
    arguments = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--train_limit=200", "--progress=none"]
    with mock.patch.object(training, "answers", wraps=training.answers) as looked_again:
        outcome = command(teacher, *arguments, *flags)
    assert outcome.code == 0, outcome
    assert looked_again.call_count == len(flags)


@pytest.mark.slow
def test_a_file_is_trained_again(command, tmp_path, trained_tiny):
    """The first training's metrics name a preprocessing; the second one finds it anew."""
    arguments = [f"--run_dir={tmp_path}/run", f"--model={trained_tiny}", "--train_model", "--teacher_epochs=1"]
    arguments += ["--teacher_warmup=0", "--batch_size=32", "--train_limit=200", "--progress=none"]
    for more in ([], ["--overwrite"]):
        outcome = command(teacher, *arguments, *more)
        assert outcome.code == 0, outcome
        assert json.loads((tmp_path / "run/teacher/metrics.json").read_text())["preprocess"] == "standardise"


@pytest.mark.usefixtures("untimed")
def test_dry_run_writes_nothing(command, tmp_path, trained_tiny):
    outcome = command(
        teacher,
        f"--run_dir={tmp_path}/run",
        f"--model={trained_tiny}",
        "--dry_run",
        "--batch_size=32",
        "--preprocess=standardise",
    )
    assert outcome.code == 0, outcome
    assert "is taken over" in outcome.out
    assert "305" not in outcome.out  # epochs that it would be trained for
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_what_is_done_with_a_folder_is_said_once(command, tmp_path):
    folder = tmp_path / "photos [2024]"
    for name in ("Train/a", "Train/b", "Val/a", "Val/b"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (24, 8), 60 * number).save(folder / name / f"{number}.webp")
    (folder / "Train/a/broken.tiff").write_text("x")
    arguments = [f"--run_dir={tmp_path}/run", "--model=resnet8", f"--dataset=folder:{folder}", "--image_size=8x16"]
    refused = command(teacher, *arguments, "--batch_size=4", "--dry_run")
    assert refused.code == 1
    assert "with `--skip_broken`:" in refused.err
    outcome = command(teacher, *arguments, "--batch_size=4", "--dry_run", "--skip_broken")
    assert outcome.code == 0, outcome
    assert outcome.out.count(f"{folder}/Val holds the images for scores, since there is no test/.") == 1
    assert outcome.out.count(f"{folder}/Train/a/broken.tiff: ") == 1


def test_sigterm_saves_inside_the_epoch_and_the_same_command_goes_on(command, tmp_path, trained_tiny, tiny_flags):
    arguments = [f"--model={trained_tiny}", "--train_model", "--teacher_epochs=2", "--teacher_warmup=0", *tiny_flags]

    class Terminate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Workspace, "callbacks", return_value=[Terminate()]):
        ended = command(teacher, f"--run_dir={tmp_path / 'ended'}", *arguments)
    assert (ended.code, ended.err) == (75, "interrupted: run the same command without --overwrite to continue.\n")
    resumed, whole = (command(teacher, f"--run_dir={tmp_path / name}", *arguments) for name in ("ended", "whole"))
    assert resumed.code == whole.code == 0, resumed.err
    assert "teacher: continues after 4 steps of the first epoch." in resumed.out
    found, expected = (keras.models.load_model(tmp_path / name / "teacher/model.keras") for name in ("ended", "whole"))
    for ours, theirs in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_file_that_fails_in_training_is_named_and_the_run_goes_on_with_it(
    command, tmp_path, monkeypatch, trained_tiny, tiny_flags
):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(decodable, "_watched", weakref.WeakSet())
    digits = load_source("digits")
    for split, label, number in itertools.product(("train", "test"), range(10), range(10)):
        path = tmp_path / "photos" / split / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images(split)[digits.labels(split) == label][number, ..., 0]).save(path)
    (tmp_path / "photos" / "train" / "0" / "none.png").write_text("x")
    arguments = [*tiny_flags, f"--model={trained_tiny}", "--train_model", "--teacher_epochs=2", "--teacher_warmup=0"]
    arguments += [f"--dataset=folder:{tmp_path / 'photos'}", "--train_limit=100", "--batch_size=4", "--skip_broken"]
    arguments += [f"--run_dir={tmp_path / 'run'}"]
    removed = tmp_path / "photos" / "train" / "3" / "1.png"
    content = removed.read_bytes()

    class Remove(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            removed.unlink()

    class Terminate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Workspace, "callbacks", return_value=[Terminate()]):
        assert command(teacher, *arguments).code == 75
    assert (tmp_path / "run/left_out.txt").read_text() == (
        f"{tmp_path}/photos/train/0/none.png: it is no image that can be read\n"
    )
    with mock.patch.object(Workspace, "callbacks", return_value=[Remove()]):
        ended = command(teacher, *arguments)
    assert ended.code == 1
    assert ended.err == (
        f"error: `--dataset`: 1 image(s) of folder:{tmp_path}/photos can't be read. Put back or replace them, and run "
        f"the same command again, which continues:\n  {removed}: No such file or directory\n"
    )
    removed.write_bytes(content)
    outcome = command(teacher, *arguments)
    assert outcome.code == 0, outcome
    assert "teacher: continues after 1 steps of the first epoch." in outcome.out


@pytest.mark.usefixtures("untimed")
def test_a_run_folder_that_another_process_works_on_is_refused(command, tmp_path, trained_tiny, tiny_flags):
    """Before anything is loaded, but not in a dry run."""
    with (tmp_path / ".lock").open("w") as file:
        file.write('{"process": 12, "machine": "other"}')
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = command(teacher, f"--run_dir={tmp_path}", f"--model={trained_tiny}", *tiny_flags)
        assert outcome.code == 1
        assert outcome.err == (
            f"error: `--run_dir`: process 12 on other is working on {tmp_path}. Wait until it ends, or use another "
            "`--run_dir`.\n"
        )
        dry = command(teacher, f"--run_dir={tmp_path}", f"--model={trained_tiny}", *tiny_flags, "--dry_run")
        assert dry.code == 0, dry.err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
