"""Measures the peak memory of training steps, beside the estimate that plans show.

    python -m benchmarks.memory [--networks=keras.applications.ResNet50:224:16] [--steps=labels] [--parts=1,2,4,8]
    python -m benchmarks.memory --changes [--networks=keras.applications.ResNet50:64:8] [--parts=2,4]

Each row runs in a process of its own: two steps on random images, with and without recomputed activations, of training
on labels, of distillation from the unpruned network itself, or of the search. Memory is that of the whole process at
its peak, less what the process takes before the network is built.

With `--changes`, the first step's changes to all weights are compared instead: with recomputed activations, and in
parts, against a plain step. Normalisation is by the statistics that the network keeps where batches come in parts,
which would otherwise be normalised one by one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.objectives.classification import Classification
from tas_tf.searching.step import PASSES, CostTarget, Searcher
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.training.distill import distiller
from tas_tf.training.memory import MEGABYTE, estimate_step
from tas_tf.training.network import logits_of
from tas_tf.training.optimizers import arch_adam, sgd
from tas_tf.zoo.loading import load_network

_CLASSES = 1000
_STEPS = ("labels", "teacher", "search")


def main() -> None:
    options = _parse()
    if options.changes:
        _compare_changes(options)
        return
    print("| network | batch | step | parts | recompute | estimate | measured | error | seconds of a step |")
    print("| --- | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for network, step, recompute, parts in itertools.product(
        options.networks, options.steps, options.recompute, options.parts
    ):
        name, image_size, batch_size = network.split(":")
        ours, theirs = multiprocessing.Pipe()
        arguments = (theirs, name, int(image_size), int(batch_size), step, parts, recompute)
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=arguments)
        process.start()
        theirs.close()
        row = f"| {name.rpartition('.')[2]}, {image_size}x{image_size} | {batch_size} | {step} | {parts} | "
        row += "yes | " if recompute else "no | "
        try:
            estimate, peak, seconds = ours.recv()
            print(f"{row}{estimate:.0f} MB | {peak:.0f} MB | {estimate / peak - 1:+.0%} | {seconds:.2f} |", flush=True)
        except EOFError:
            print(f"{row}| out of memory | | |", flush=True)
        process.join()


def _measure(
    out: Connection, network: str, image_size: int, batch_size: int, step: str, parts: int, recompute: bool
) -> None:
    before = _peak()
    model = load_network(network, num_classes=_CLASSES, image_size=image_size)
    space = SearchSpace.from_model(model)
    options = {"parts": parts, "recompute": recompute}
    if step == "search":
        supernet, cost = build_supernet(space), ExpectedCost(CostModel(space))
        learner = Searcher(supernet, Classification(_CLASSES), cost, CostTarget(0.5), **options)
        learner.compile(sgd(0.01, l2=1e-4), arch_adam(1e-3))
        student, teacher = supernet.body, None
    else:
        student, teacher = logits_of(model, space), logits_of(model, space) if step == "teacher" else None
        alpha = 0.9 if step == "teacher" else 0.0
        learner = distiller(
            student, teacher, sgd(0.01, l2=1e-4), objective=Classification(_CLASSES), alpha=alpha, **options
        )
    batch = tf.random.normal([batch_size, *space.graph.input.shape[1:]]), tf.zeros([batch_size], tf.int32)
    del model
    seconds, run = [], tf.function(learner.train_step)
    for _ in range(2):
        started = time.perf_counter()
        tf.nest.map_structure(lambda one: one.numpy(), run((batch, batch) if step == "search" else batch))
        seconds.append(time.perf_counter() - started)
    peak = _peak() - before  # before the estimate, which traces the network again
    passes = PASSES if step == "search" else 1
    estimate = estimate_step(student, batch_size, accumulate=parts, recompute=recompute, teacher=teacher, passes=passes)
    out.send((estimate.total / MEGABYTE, peak, seconds[-1]))


def _compare_changes(options: argparse.Namespace) -> None:
    print("| network | batch | step | largest difference |")
    print("| --- | ---: | --- | ---: |")
    for network in options.networks:
        name, image_size, batch_size = network.split(":")
        model = load_network(name, num_classes=_CLASSES, image_size=int(image_size))
        _settle(model, int(batch_size))
        steps = [("recomputed", True, {"recompute": True})]
        options.parts = [parts for parts in options.parts if parts > 1]
        steps += [(f"in {parts} parts", False, {"parts": parts}) for parts in options.parts]
        steps += [
            (f"in {parts} parts, recomputed", False, {"parts": parts, "recompute": True}) for parts in options.parts
        ]
        for label, normalises, step in steps:
            plain, changed = (_changes(model, int(batch_size), normalises, **one) for one in ({}, step))
            pairs = zip(plain, changed, strict=True)
            worst = max(np.abs(one - other).max() / np.abs(one).max() for one, other in pairs if one.any())
            print(f"| {name.rpartition('.')[2]}, {image_size}x{image_size} | {batch_size} | {label} | {worst:.1e} |")


def _changes(model: keras.Model, batch_size: int, normalises: bool, **options: Any) -> list[np.ndarray]:
    """What the first step changes in each trained weight; batch normalisation learns only if it `normalises`."""
    student = logits_of(model, SearchSpace.from_model(model))
    for layer in student.layers:
        layer.trainable = normalises or not isinstance(layer, keras.layers.BatchNormalization)
    learner = distiller(student, None, sgd(0.01, l2=1e-4), objective=Classification(_CLASSES), alpha=0.0, **options)
    before = [weight.numpy() for weight in student.trainable_variables]
    labels = np.random.default_rng(0).integers(0, _CLASSES, batch_size)
    learner.train_step((_images(model, batch_size), tf.constant(labels)))
    return [weight.numpy() - old for weight, old in zip(student.trainable_variables, before, strict=True)]


def _settle(model: keras.Model, batch_size: int) -> None:
    """Sets the statistics of batch normalisation to those of a batch; without, values grow from layer to layer."""
    momenta = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            momenta[layer], layer.momentum = layer.momentum, 0.0
    model(_images(model, batch_size), training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum


def _images(model: keras.Model, batch_size: int) -> tf.Tensor:
    shape = (batch_size, *model.inputs[0].shape[1:])
    return tf.constant(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def _peak() -> float:
    """Largest memory of the process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def _parse() -> argparse.Namespace:
    def texts(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    network = "keras.applications.ResNet50:224:16"
    parser.add_argument("--networks", type=texts, default=[network], help="NAME:IMAGE_SIZE:BATCH_SIZE, ...")
    parser.add_argument("--steps", type=texts, default=["labels"], help=f"some of {', '.join(_STEPS)}")
    parser.add_argument("--parts", type=lambda text: [*map(int, text.split(","))], default=[1, 2, 4, 8], help="parts")
    parser.add_argument("--changes", action="store_true", help="compare what a step changes, instead of its memory")
    parser.add_argument(
        "--recompute", type=lambda text: [one == "yes" for one in texts(text)], default=[False, True], help="no, yes"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
