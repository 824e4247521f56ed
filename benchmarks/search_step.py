"""Measures how much longer a search step takes than a plain training step of the unpruned network.

    python -m benchmarks.search_step --model=resnet20 --image_size=32 --batch_size=128 [--json]

All steps run interleaved in one process, so that drift of a busy machine affects them equally. Results are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.graph.graph import Graph
from tas_tf.objectives.classification import Classification
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.training.optimizers import arch_adam, sgd
from tas_tf.zoo.loading import load_network


def main() -> None:
    options = _parse()
    if options.mixed_bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    result = measure(options)
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        for name, value in result.items():
            print(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")


def measure(options: argparse.Namespace) -> dict:
    network = load_network(options.model, image_size=options.image_size)
    started = time.perf_counter()
    searcher = _make_searcher(network, options)
    build_seconds = time.perf_counter() - started
    batch = _random_batch(options)
    steps = {
        "plain": _plain_step(network, batch),
        "weight": _search_step(searcher, searcher.update_weights, batch, draw=2),
        "architecture": _search_step(searcher, searcher.update_logits, batch, draw=3),
    }
    trace_seconds = {name: _first_call_seconds(step) for name, step in steps.items()}
    times = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ratios = np.add(times["weight"], times["architecture"]) / np.array(times["plain"])
    return {
        "model": options.model,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        **{f"{name}_ms": 1000 * value for name, value in medians.items()},
        "weight_ratio": medians["weight"] / medians["plain"],
        "architecture_ratio": medians["architecture"] / medians["plain"],
        "iteration_ratio": (medians["weight"] + medians["architecture"]) / medians["plain"],
        "iteration_ratio_quartiles": [round(float(value), 3) for value in np.quantile(ratios, [0.25, 0.75])],
        "build_seconds": build_seconds,
        "trace_seconds": trace_seconds["weight"] + trace_seconds["architecture"],
        "plain_trace_seconds": trace_seconds["plain"],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _make_searcher(network: keras.Model, options: argparse.Namespace) -> Searcher:
    space = SearchSpace.from_graph(Graph.from_model(network))
    supernet = build_supernet(space, num_drawn=options.num_drawn)
    searcher = Searcher(
        supernet,
        Classification(space.graph.num_classes),
        ExpectedCost(CostModel(space)),
        CostTarget(0.5),
        jit_compile=options.jit_compile,
    )
    searcher.compile(sgd(0.1, l2=5e-4), arch_adam(1e-3))
    return searcher


def _random_batch(options: argparse.Namespace) -> tuple[tf.Tensor, tf.Tensor]:
    images = tf.random.normal([options.batch_size, options.image_size, options.image_size, 3])
    return images, tf.random.uniform([options.batch_size], maxval=10, dtype=tf.int32)


def _plain_step(network: keras.Model, batch: tuple) -> Callable[[], object]:
    """Returns Keras's own training step of the unpruned network, with the same optimizer and loss."""
    logits = network.layers[-1].get_config().get("activation") != "softmax"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    network.compile(sgd(0.1, l2=5e-4), loss, metrics=["accuracy"], jit_compile=False)
    step = tf.function(lambda: network.train_step(batch))
    return lambda: tf.nest.map_structure(lambda value: value.numpy(), step())


def _search_step(searcher: Searcher, update: Callable[..., None], batch: tuple, draw: int) -> Callable[[], object]:
    @tf.function
    def step():
        update(*batch, tf.constant(draw))
        return searcher.get_metrics_result()["weight_loss"]

    return lambda: step().numpy()


def _first_call_seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", help="name of a network, or path of a .keras file")
    parser.add_argument("--image_size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each step")
    parser.add_argument("--num_drawn", type=int, default=2, help="widths drawn at once")
    parser.add_argument("--jit_compile", action="store_true", help="XLA for the search's gradients")
    parser.add_argument("--mixed_bfloat16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
