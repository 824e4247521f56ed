"""Measures the peak memory of training steps whose batches are computed in parts.

    python -m benchmarks.memory [--network=keras.applications.ResNet50] [--batch_size=16] [--parts=1,2,4,8]

Each number of parts runs in a process of its own: two steps of training on labels, on random images. Memory is that of
the whole process, TensorFlow and weights included; `without steps` is what it takes before the first one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

from tas_tf.objectives.classification import Classification
from tas_tf.space.space import SearchSpace
from tas_tf.training.distill import distiller
from tas_tf.training.network import logits_of
from tas_tf.training.optimizers import sgd
from tas_tf.zoo.loading import load_network


def main() -> None:
    options = _parse()
    print("| parts | peak memory | without steps | seconds of a step |")
    print("| ---: | ---: | ---: | ---: |")
    for parts in options.parts:
        ours, theirs = multiprocessing.Pipe()
        arguments = (theirs, options.network, options.image_size, options.batch_size, parts)
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=arguments)
        process.start()
        theirs.close()
        try:
            peak, before, seconds = ours.recv()
            print(f"| {parts} | {peak:.0f} MB | {before:.0f} MB | {seconds:.2f} |", flush=True)
        except EOFError:
            print(f"| {parts} | out of memory | | |", flush=True)
        process.join()


def _measure(out: Connection, network: str, image_size: int, batch_size: int, parts: int) -> None:
    model = load_network(network, num_classes=1000, image_size=image_size)
    student = logits_of(model, SearchSpace.from_model(model))
    del model
    learner = distiller(student, None, sgd(0.01, l2=1e-4), objective=Classification(1000), alpha=0.0, parts=parts)
    images, labels = tf.random.normal([batch_size, *student.input_shape[1:]]), tf.zeros([batch_size], tf.int32)
    step = tf.function(learner.train_step).get_concrete_function((images, labels))
    before, seconds = _peak(), []
    for _ in range(2):
        started = time.perf_counter()
        float(step((images, labels))["loss"])
        seconds.append(time.perf_counter() - started)
    out.send((_peak(), before, min(seconds)))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="keras.applications.ResNet50", help="the network")
    parser.add_argument("--image_size", type=int, default=224, help="height and width of images")
    parser.add_argument("--batch_size", type=int, default=16, help="images in a batch")
    parser.add_argument("--parts", type=lambda text: [*map(int, text.split(","))], default=[1, 2, 4, 8], help="parts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
