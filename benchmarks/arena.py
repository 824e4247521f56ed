"""Compares planned arenas with those that LiteRT for Microcontrollers uses, and its outputs with LiteRT's.

    python -m benchmarks.arena [--networks=resnet20,u_net,keras.applications.MobileNetV2] [--image_size=32]

Networks have random weights; calibration and statistics of batch normalisation are those of noise. Planned and measured
bytes are those of tensors that share memory; what the runtime keeps besides is estimated, and measured too. Needs the
extra `micro`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tas_tf.deploy.lite_graph import LiteGraph
from tas_tf.deploy.micro.arena import kept_bytes, planned_bytes
from tas_tf.deploy.micro.simulate import Usage, random_inputs, run, run_reference
from tas_tf.deploy.saved_model import serving_model, write_frozen
from tas_tf.deploy.tflite import write_tflite
from tas_tf.extras import require_extra
from tas_tf.zoo.loading import load_network

U_NET = "u_net"
NETWORKS = (
    *("resnet20", U_NET),
    *(f"keras.applications.{name}" for name in ("MobileNetV2", "EfficientNetB0", "DenseNet121")),
)
#: Room for what is kept, which is estimated.
_ROOM = 2**20


def main() -> None:
    options = _parse()
    require_extra("micro")
    print("| network | planned | measured | kept, estimate | kept, measured | steps of difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.networks:
        planned, used, steps = measure(_network(name, options.image_size))
        counts = planned.planned, used.planned, planned.kept, used.kept, steps
        print(f"| {name.rpartition('.')[2]} | {' | '.join(f'{count:,}' for count in counts)} |", flush=True)
        keras.backend.clear_session()


def measure(model: keras.Model) -> tuple[Usage, Usage, int]:
    """Returns the arena as planned and as used, and the largest difference to LiteRT's outputs in steps."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, *model.input_shape[1:])).astype(np.float32)
    _settle(model, images)
    with tempfile.TemporaryDirectory() as scratch:
        frozen = write_frozen(serving_model(model), Path(scratch) / "frozen")
        path = write_tflite(frozen, Path(scratch) / "int8.tflite", format="int8", calibration=images)
        flatbuffer = path.read_bytes()
    graph = LiteGraph.read(flatbuffer)
    planned = Usage(planned_bytes(graph), kept_bytes(graph))
    inputs = random_inputs(graph)
    arena = planned.planned + planned.kept + _ROOM
    outputs, used = run(flatbuffer, inputs, num_outputs=len(graph.outputs), arena=arena)
    pairs = zip(outputs, run_reference(flatbuffer, graph, inputs), strict=True)
    return planned, used, max(int(np.abs(own.astype(np.int64) - other).max()) for own, other in pairs)


def _settle(model: keras.Model, images: np.ndarray) -> None:
    """Gives batch normalisation the images' statistics, as training would: otherwise, signals vanish."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def _network(name: str, image_size: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return _u_net(image_size) if name == U_NET else load_network(name, image_size=image_size)


def _u_net(image_size: int, widths: tuple[int, ...] = (16, 32, 64)) -> keras.Model:
    """Two levels, each with two convolutions down and two up."""

    def block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
        for _ in range(2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        return x

    x = images = keras.Input((image_size, image_size, 3))
    skips = []
    for width in widths[:-1]:
        skips.append(block(x, width))
        x = keras.layers.MaxPooling2D()(skips[-1])
    x = block(x, widths[-1])
    for width, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = keras.layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = block(keras.layers.Concatenate()([skip, x]), width)
    return keras.Model(images, keras.layers.Conv2D(10, 1)(x), name=U_NET)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=NETWORKS, help="names, of the zoo too")
    parser.add_argument("--image_size", type=int, default=32, help="height and width of the images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
