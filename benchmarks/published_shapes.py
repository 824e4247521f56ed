"""Builds, runs and exports the students of all published shapes, without a search or a teacher.

    python -m benchmarks.published_shapes [--only=cifar10-resnet20,imagenet-resnet18]

Prints the cost of each student, the size of its float32 TFLite file, and the largest difference of this file's and the
SavedModel's outputs from Keras's on random images, as a share of the largest output. Kernels are newly initialised;
scales, offsets and running statistics are random.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import export_saved_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.published import PUBLISHED, shape_file
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.zoo.loading import load_network


def main() -> None:
    print("| shape | MACs | parameters | .tflite | SavedModel differs by | TFLite differs by |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in _parse().only:
        macs, params, size, saved, lite = measure(name)
        print(f"| {name} | {macs:,} | {params:,} | {size:,} | {saved:.1e} | {lite:.1e} |", flush=True)
        keras.backend.clear_session()


def measure(name: str) -> tuple[int, int, int, float, float]:
    """Returns MACs, parameters, bytes of the TFLite file, and the differences of SavedModel and TFLite file."""
    known = PUBLISHED[name]
    network = load_network(known.network, num_classes=known.num_classes, image_size=known.image_size)
    shape = Shape.load(shape_file(f"published/{name}"))
    space = SearchSpace.from_model(network, units=shape.widths)
    student = build_student(space, shape)
    rng = np.random.default_rng(0)
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            scale, variance = rng.uniform(0.5, 1.5, (2, *layer.gamma.shape))
            offset, mean = rng.normal(0.0, 0.1, (2, *layer.gamma.shape))
            layer.set_weights([scale, offset, mean, variance])
    images = rng.normal(size=(2, *student.input_shape[1:])).astype(np.float32)
    expected = np.asarray(student(images, training=False))
    scale = np.abs(expected).max()
    with tempfile.TemporaryDirectory() as scratch:
        folder = export_saved_model(student, Path(scratch) / "saved_model")
        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
        (saved,) = signature(tf.constant(images)).values()
        path = export_tflite(folder, Path(scratch) / "fp32.tflite")
        lite = TFLiteModel(path).predict(images)
        size = path.stat().st_size
    costs = (CostModel(space, kind)(shape) for kind in ("macs", "params"))
    return (*costs, size, np.abs(saved.numpy() - expected).max() / scale, np.abs(lite - expected).max() / scale)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(PUBLISHED), help="comma-separated names"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
