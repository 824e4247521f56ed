"""Compares the TFLite file sizes that the cost model predicts with the real ones.

    python -m benchmarks.file_size [--models=resnet20,keras.applications.MobileNetV2] [--students=20] [--json]

The prediction is calibrated only on the unpruned network's file. Students have random shapes and random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tas_tf.deploy.tflite import file_size
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize
from tas_tf.student.meter import make_cost
from tas_tf.zoo.loading import load_network

MODELS = ("resnet20", "keras.applications.MobileNetV2", "keras.applications.EfficientNetB0")


def measure(name: str, students: int) -> list[tuple[int, int]]:
    """Returns predicted and real bytes of random students."""
    space = SearchSpace.from_model(load_network(name, image_size=32))
    real = FileSize(space, file_size)
    cost = make_cost(space, "bytes", real)
    shapes = [Shape.random(space, seed) for seed in range(students)]
    return [(cost(shape), real(shape)) for shape in track(shapes, name, console=Console(stderr=True))]


def main() -> None:
    options = _parse()
    report = {}
    for name in options.models:
        report[name] = measure(name, options.students)
        keras.backend.clear_session()
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
        return
    table = Table("network", "students", "bytes, smallest", "bytes, largest", "largest error", "mean error")
    for name, pairs in report.items():
        errors = [abs(predicted / real - 1) for predicted, real in pairs]
        sizes = [real for _, real in pairs]
        table.add_row(
            name,
            *(f"{value:,}" for value in (len(pairs), min(sizes), max(sizes))),
            *(f"{value:.2%}" for value in (max(errors), sum(errors) / len(errors))),
        )
    Console().print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=MODELS, help="comma-separated names")
    parser.add_argument("--students", type=int, default=20, help="random students of each model")
    parser.add_argument("--json", action="store_true", help="print JSON: predicted and real bytes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
