"""Measures memory and speed of data that is read from a folder of classes.

    python -m benchmarks.streaming [--counts=5000,50000] [--image_size=224] [--cache] [--folder=FOLDER]

Makes folders of JPEG files in 10 classes, and reads an epoch of each as a training does, with random windows and mirror
images (with `--cache`, kept decoded and without windows), in a process for each. Memory is that of the whole process,
TensorFlow included; `before` is what it takes once the files are listed and checked. The search's two halves are read
likewise. For comparison, a network is trained for a few steps.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from PIL import Image

from tas_tf.data.task import Task
from tas_tf.objectives.classification import Classification
from tas_tf.space.space import SearchSpace
from tas_tf.training.distill import distiller
from tas_tf.training.network import logits_of
from tas_tf.training.optimizers import sgd
from tas_tf.zoo.loading import load_network

_CLASSES, _DIFFERENT = 10, 200
_BATCH = 64


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(options.folder or made)
        print("| images | read as | before | peak | images/s |")
        print("| ---: | --- | ---: | ---: | ---: |")
        for count in options.counts:
            root = make_folder(folder / str(count), count, options.image_size)
            for kind in ("epoch", "search"):
                cache = str(folder / "cache") if options.cache else None
                found = _in_process(_read, str(root), options.image_size, kind, cache)
                print(f"| {count:,} | {kind} | {found['before']:.0f} MB | {found['peak']:.0f} MB | ", end="")
                print(f"{found['images_per_second']:.0f} |", flush=True)
        rate = _in_process(_train, options.network, options.image_size)
        print(f"\n{options.network} trains {rate:.1f} images/s in batches of {_BATCH // 4}.")


def make_folder(root: Path, count: int, size: int) -> Path:
    """Writes images of random blots as JPEG files into a folder for each class; `count` for training, some for tests.

    There are 200 different ones; decoding them all takes as long as if all were different.
    """
    if root.exists():
        return root
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(_DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((size * 4 // 3, size), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
        contents.append(buffer.getvalue())
    for split, number in (("train", count), ("test", 10 * _CLASSES)):
        for index in range(number):
            path = root / split / f"class{index % _CLASSES}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[index % _DIFFERENT])
    return root


def _in_process(function: Any, *arguments: Any) -> Any:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=function, args=(theirs, *arguments))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def _read(out: Connection, folder: str, size: int, kind: str, cache: str | None) -> None:
    changes = {"cache_dir": cache, "flip": True} if cache else {"random_resized_crop": True, "flip": True}
    # Without `streamed`, small folders would be read into memory.
    task = Task.load(f"folder:{folder}", streamed=True, image_size=size, preprocess="scale_0_1", **changes)
    dataset, steps = task.training(_BATCH) if kind == "epoch" else task.searching(_BATCH)
    batches = dataset(0).take(steps)
    before, started, read = _peak(), time.perf_counter(), 0
    for batch in batches:
        read += sum(int(labels.shape[0]) for labels in tf.nest.flatten(batch) if labels.shape.rank == 1)
    rate = read / (time.perf_counter() - started)
    out.send({"before": before, "peak": _peak(), "images_per_second": rate})


def _train(out: Connection, network: str, size: int) -> None:
    model = load_network(network, num_classes=_CLASSES, image_size=size)
    student = logits_of(model, SearchSpace.from_model(model))
    learner = distiller(student, None, sgd(0.01, l2=1e-4), objective=Classification(_CLASSES), alpha=0.0)
    batch = tf.random.normal([_BATCH // 4, size, size, 3]), tf.zeros([_BATCH // 4], tf.int32)
    step = tf.function(learner.train_step).get_concrete_function(batch)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        float(step(batch)["loss"])
        seconds.append(time.perf_counter() - started)
    out.send(_BATCH // 4 / min(seconds))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=lambda text: [*map(int, text.split(","))], default=[5000, 50000])
    parser.add_argument("--image_size", type=int, default=224, help="height and width of images")
    parser.add_argument("--network", default="keras.applications.MobileNetV2", help="network to train for comparison")
    parser.add_argument("--cache", action="store_true", help="keep decoded images, see --cache_dir of the commands")
    parser.add_argument("--folder", help="keep the images here for another call; by default they are removed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
