"""Makes networks for other tasks than classes smaller, and compares each student with uniform widths.

    python -m benchmarks.tasks [--tasks=binary,segmentation] [--table]

All data comes from Fashion-MNIST: shirts or not (`binary`), attributes of clothes (`multilabel`), the angle by which
an image was turned (`regression`), the pixels of clothes in composed scenes (`segmentation`), and both class and
angle, from an image and a table (`heads`). A teacher is trained by plain Keras. `tas_tf.compress` halves its
multiply-adds, once by a race, and once with a single proposal, which is uniform widths. What was measured is kept in
benchmarks/records/tasks, and the table in docs/RESULTS.md is made from it; `--table` does only that.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from scipy import ndimage

import tas_tf
from benchmarks.records import RECORDS
from tas_tf.cli.document import with_lines
from tas_tf.data.sources import load_source
from tas_tf.deploy.latency import time_interleaved
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.files import read_json, write_bytes, write_json

_TRAIN, _TEST = 8000, 2000
_BUDGET = "macs:0.5"
_STUDENT_EPOCHS = 12
_DOCS = Path(__file__).parents[1] / "docs" / "RESULTS.md"
_BEGIN, _END = "<!-- tasks: made by benchmarks/tasks.py -->", "<!-- end of tasks -->"
#: Images and labels, in dictionaries if there are several inputs or outputs.
Arrays = tuple[Any, Any]

# What clothes of each class are: for the upper body, with long sleeves, for the feet, for the legs, open at the front.
_ATTRIBUTES = np.array(
    [
        *([1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 1]),
        *([0, 0, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]),
    ],
    np.float32,
)
# Classes of pixels by class of clothes, above 0, the background: upper body, legs, feet, bag.
_PIXEL_CLASS = np.array([1, 2, 1, 1, 1, 3, 1, 3, 4, 3])


@dataclass(frozen=True)
class Case:
    """A task with its data and its network.

    Attributes:
        data: Returns images and labels, given those of Fashion-MNIST and a source of random numbers.
        network: Builds the network.
        loss: Loss of the teacher.
        epochs: Epochs of the teacher.
    """

    data: Callable[[np.ndarray, np.ndarray, np.random.Generator], Arrays]
    network: Callable[[], keras.Model]
    loss: str | dict[str, str]
    epochs: int


def main() -> None:
    options = _parse()
    for name in () if options.table else options.tasks:
        path = RECORDS / "tasks" / f"{name}.json"
        if not path.exists():
            print(f"== {name}", flush=True)
            write_json(path, measure(CASES[name]))
    lines = list(_table())
    write_bytes(_DOCS, with_lines(_DOCS.read_text(), lines, _BEGIN, _END).encode())
    print("\n".join(lines))


def measure(case: Case) -> dict:
    """Trains a teacher, makes it smaller in two ways, and measures all three."""
    source, rng = load_source("fashion_mnist"), np.random.default_rng(0)
    train, test = (
        case.data(source.images(split)[:count] / np.float32(255), source.labels(split)[:count], rng)
        for split, count in (("train", _TRAIN), ("test", _TEST))
    )
    keras.utils.set_random_seed(0)
    teacher = case.network()
    steps = case.epochs * (_TRAIN // 64)
    teacher.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)), case.loss)
    teacher.fit(*train, batch_size=64, epochs=case.epochs, verbose=2)
    found, students = {}, {}
    for name, proposals in (("race", 8), ("uniform", 1)):
        settings = {"race": {"proposals": proposals}, "training": {"epochs": _STUDENT_EPOCHS}, "verbose": 2}
        result = tas_tf.compress(teacher, train, test, _BUDGET, **settings)
        students[name] = result.student
        found[name] = {**result.student_metrics, "proposal": result.race.winner.name}
        found["teacher"] = result.teacher_metrics
    some = keras.tree.map_structure(lambda array: array[:200], test[0])
    return {**found, "milliseconds": _milliseconds({"teacher": teacher, **students}, some)}


def _milliseconds(models: dict[str, keras.Model], images: Any) -> dict[str, dict[str, float]]:
    """Median latency of one image by format and model, all models in turns."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for format in ("fp32", "int8"):
            calls = {}
            for name, model in models.items():
                path = Path(folder) / f"{name}_{format}.tflite"
                loaded = TFLiteModel(export_tflite(model, path, format=format, calibration=images))
                calls[name] = loaded.bind(keras.tree.map_structure(lambda array: array[:1], images))
            timed = time_interleaved(calls, rounds=200)
            found[format] = {name: one.median_ms for name, one in timed.items()}
    return found


def _shirts(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Arrays:
    return images, (labels == 6).astype(np.int64)


def _attributes(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Arrays:
    return images, _ATTRIBUTES[labels]


def _turned(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Images turned by up to 45 degrees; labels are from -1 to 1."""
    angles = rng.uniform(-45, 45, len(images))
    turned = [
        ndimage.rotate(image[..., 0], angle, reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(turned)[..., None].astype(np.float32), (angles / 45).astype(np.float32)[:, None]


def _scenes(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Scenes of 48x48 pixels with three images at random places, later ones in front; labels of their pixels."""
    size, side = 48, images.shape[1]
    scenes = rng.uniform(0, 0.2, (len(images), size, size, 1)).astype(np.float32)
    classes = np.zeros((len(images), size, size), np.int64)
    for scene, pixels in zip(scenes, classes, strict=True):
        for number in rng.integers(len(images), size=3):
            row, column = rng.integers(0, size - side + 1, 2)
            place = slice(row, row + side), slice(column, column + side)
            seen = images[number, ..., 0] > 0.1
            scene[place][seen] = images[number][seen]
            pixels[place][seen] = _PIXEL_CLASS[labels[number]]
    return scenes, classes


def _heads(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Turned images, and a table with the mean and the spread of their brightness; classes and angles."""
    turned, angles = _turned(images, labels, rng)
    table = np.stack([turned.mean((1, 2, 3)), turned.std((1, 2, 3))], axis=1)
    return {"image": turned, "brightness": table}, {"kind": labels, "angle": angles}


def _conv(x, filters: int, strides: int = 1):
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def _block(x, filters: int, strides: int = 1):
    """Two convolutions with a shortcut."""
    y = _conv(layers.ReLU()(_conv(x, filters, strides)), filters)
    if strides > 1 or x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def _residual(outputs: int, activation: str) -> keras.Model:
    images = keras.Input((28, 28, 1))
    return keras.Model(images, layers.Dense(outputs, activation)(_features(images)), name="residual")


def _two_heads() -> keras.Model:
    images, table = keras.Input((28, 28, 1), name="image"), keras.Input((2,), name="brightness")
    x = layers.Concatenate()([_features(images), layers.Dense(8, "relu")(table)])
    heads = {"kind": layers.Dense(10, "softmax", name="kind")(x), "angle": layers.Dense(1, name="angle")(x)}
    return keras.Model({"image": images, "brightness": table}, heads, name="heads")


def _features(images):
    """Features of a residual network, `[batch, 64]`."""
    x = layers.ReLU()(_conv(images, 16))
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = _block(x, filters, strides)
    return layers.GlobalAveragePooling2D()(x)


def _unet() -> keras.Model:
    images = keras.Input((48, 48, 1))
    x, levels = images, []
    for filters in (16, 32):
        x = layers.ReLU()(_conv(layers.ReLU()(_conv(x, filters)), filters))
        levels.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.ReLU()(_conv(layers.ReLU()(_conv(x, 64)), 64))
    for filters, level in ((32, levels[1]), (16, levels[0])):
        x = layers.Concatenate()([layers.UpSampling2D()(x), level])
        x = layers.ReLU()(_conv(layers.ReLU()(_conv(x, filters)), filters))
    return keras.Model(images, layers.Conv2D(5, 1, activation="softmax")(x), name="unet")


CASES = {
    "binary": Case(_shirts, lambda: _residual(1, "sigmoid"), "binary_crossentropy", 12),
    "multilabel": Case(_attributes, lambda: _residual(5, "sigmoid"), "binary_crossentropy", 12),
    "regression": Case(_turned, lambda: _residual(1, "linear"), "mse", 12),
    "segmentation": Case(_scenes, _unet, "sparse_categorical_crossentropy", 8),
    "heads": Case(_heads, _two_heads, {"kind": "sparse_categorical_crossentropy", "angle": "mse"}, 12),
}


#: Scores to show beside the one that counts.
_BESIDE = {"binary": ["roc_auc"], "heads": ["kind_accuracy", "angle_mae"]}


def _table() -> Iterator[str]:
    speeds = "student, fp32 | uniform, fp32 | student, int8"
    yield f"| task | score | teacher | student | uniform | MACs | {speeds} | winner |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for name in CASES:
        path = RECORDS / "tasks" / f"{name}.json"
        if path.exists():
            yield f"| {' | '.join(_row(name, read_json(path)))} |"


def _row(name: str, record: dict) -> list[str]:
    models = ("teacher", "race", "uniform")
    metrics = [*_BESIDE.get(name, ()), record["teacher"]["metric"]]
    scores = [" / ".join(f"{record[model][one]:.4f}" for one in metrics) for model in models]
    shares = f"{record['race']['macs'] / record['teacher']['macs']:.3f}"
    times = record["milliseconds"]
    speed = [
        f"{times[format]['teacher'] / times[format][model]:.2f}x"
        for format, model in (("fp32", "race"), ("fp32", "uniform"), ("int8", "race"))
    ]
    return [
        name,
        " / ".join(one.replace("_", " ") for one in metrics),
        *scores,
        shares,
        *speed,
        record["race"]["proposal"],
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(CASES), help="some of the tasks")
    parser.add_argument("--table", action="store_true", help="only write the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
