"""What random bad input is made of: runs, models, images and tables, small and whole."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.commands import run_to_the_end, start
from tas_tf.errors import UserError
from tas_tf.files import read_json

#: Flags of all runs.
COMMON = (
    *("--dataset=digits", "--train_limit=200", "--batch_size=32", "--preprocess=standardise", "--test_limit=32"),
    *("--proposals=2", "--student_epochs=1", "--progress=none", "--latency_rounds=2", "--formats=fp32"),
)
#: Saves after each step, so that interrupted runs have all kinds of files.
OFTEN = ("--checkpoint_minutes=0.000001",)
#: Files that are there in the middle of a race, after its first lap, and of a training.
_IN_A_RACE, _IN_A_TRAINING = "search/checkpoints/**/*.npz", "student/checkpoints/**/previous.json"
#: Records of a training: of its newest checkpoint, and of the one before.
_STATES = ("progress.json", "previous.json")
#: Files of Keras 2.
OF_KERAS_2 = ("old.keras", "old.h5")


@dataclass(frozen=True)
class Base:
    """What cases damage copies of.

    Args:
        folder: The folder of all that follows.

    Attributes:
        run: A finished run.
        interrupted: A run that was killed in a race.
        stopped: A run that was killed while the student was trained.
        model: The user's network.
        latencies: Measured latencies of it.
        photos: A class folder.
        table: A table of images and labels.
    """

    folder: Path

    def __post_init__(self) -> None:
        paths = {
            "run": "run",
            "interrupted": "interrupted",
            "stopped": "stopped",
            "model": "tiny.keras",
            "latencies": "run/probe/latency.json",
        }
        for name, path in {**paths, "photos": "photos", "table": "photos/labels.csv"}.items():
            object.__setattr__(self, name, self.folder / path)

    def within(self, folder: Path) -> Base:
        """A copy in another folder."""
        shutil.copytree(self.folder, folder)
        return Base(folder)


def prepare(folder: Path) -> Base:
    """Makes all that cases damage."""
    base = Base(folder)
    folder.mkdir()
    subprocess.run([sys.executable, "-c", _MAKE_MODEL, str(base.model), str(folder / "tiny.h5")], check=True)
    run_to_the_end("trainers.pipeline", (f"--model={base.model}", *COMMON, f"--run_dir={base.run}"))
    for run, reached in ((base.interrupted, _IN_A_RACE), (base.stopped, _IN_A_TRAINING)):
        _kill_at(reached, run, [f"--model={base.model}", *COMMON, *OFTEN, f"--run_dir={run}"])
    if find_spec("tf_keras"):
        files = [str(folder / name) for name in OF_KERAS_2]
        subprocess.run([sys.executable, "-c", _MAKE_MODEL_OF_KERAS_2, *files], check=True)
    run_to_the_end("trainers.probe", (f"--run_dir={base.run}",))
    subprocess.run([sys.executable, "measure.py"], cwd=base.run / "probe", check=True, stdout=subprocess.DEVNULL)
    images, rows = np.random.default_rng(0), ["file,label"]
    for label in range(10):
        for number in range(4):
            path = base.photos / str(label) / f"{number}.{'png' if number % 2 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.integers(0, 255, (8, 8), "uint8")).save(path)
            rows.append(f"{label}/{path.name},{label}")
    base.table.write_text("\n".join(rows) + "\n")
    return base


def _kill_at(reached: str, run: Path, flags: list[str]) -> None:
    """Runs the pipeline, and kills it once it has written a file and its training has a checkpoint to fall back on.

    Raises:
        RuntimeError: It ends without that.
    """
    while True:
        process = start("trainers.pipeline", flags)
        while process.is_alive() and not (_has(run, reached) and _can_fall_back(run)):
            time.sleep(0.002)
        if not process.is_alive():
            raise RuntimeError(f"The pipeline ended without {reached}.")
        process.kill()
        process.join()
        if _can_fall_back(run):  # it may have been saving again meanwhile
            return
        shutil.rmtree(run)


def _can_fall_back(run: Path) -> bool:
    """Whether both records of each training name checkpoints of their own."""
    with contextlib.suppress(FileNotFoundError, UserError):
        newest = {path.parent: read_json(path)["checkpoint"] for path in run.glob(f"**/{_STATES[0]}")}
        before = {path.parent: read_json(path)["checkpoint"] for path in run.glob(f"**/{_STATES[1]}")}
        return newest.keys() == before.keys() and all(newest[folder] != before[folder] for folder in newest)
    return False


def _has(run: Path, pattern: str) -> bool:
    try:
        return any(run.glob(pattern))
    except FileNotFoundError:  # a folder was removed meanwhile
        return False


_MAKE_MODEL_OF_KERAS_2 = """
import sys
import tf_keras
from tf_keras import layers

tf_keras.utils.set_random_seed(0)
images = tf_keras.Input((8, 8, 1))
x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(images)))
x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
outputs = layers.Dense(10, "softmax")(layers.GlobalAveragePooling2D()(x))
model = tf_keras.Model(images, outputs, name="tiny")
for path in sys.argv[1:]:
    model.save(path)
"""
_MAKE_MODEL = """
import sys
import keras
from keras import layers
from tas_tf.data.task import Task

keras.utils.set_random_seed(0)
images = keras.Input((8, 8, 1))
x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(images)))
for _ in range(2):
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(x))
    x = layers.Activation("relu")(layers.Add()([x, y]))
outputs = layers.Dense(10, "softmax")(layers.GlobalAveragePooling2D()(x))
model = keras.Model(images, outputs, name="tiny")
model.compile("adam", "sparse_categorical_crossentropy")
dataset, steps = Task.load("digits").training(32)
model.fit(dataset(0), epochs=6, steps_per_epoch=steps, verbose=0)
for path in sys.argv[1:]:
    model.save(path)
"""
