"""Looks into the `tf.data.Dataset` of a user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tensorflow as tf


def steps_of(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """Yields a dataset and those that it was made from, the last step first.

    TensorFlow has no public way to ask. Where it has no private one either, a dataset counts as a single step.
    """
    yield dataset
    for earlier in getattr(dataset, "_inputs", list)():
        yield from steps_of(earlier)


def random_changes(steps: Sequence[tf.data.Dataset]) -> tuple[bool, bool]:
    """Whether random numbers are drawn before a `cache`, hence once for all epochs, and whether they are drawn anew.

    Args:
        steps: Result of `steps_of`.
    """
    cached = next((number for number, step in enumerate(steps) if "CacheDataset" in type(step).__name__), len(steps))
    return any(map(_draws_numbers, steps[cached:])), any(map(_draws_numbers, steps[:cached]))


def _draws_numbers(step: tf.data.Dataset) -> bool:
    for function in getattr(step, "_functions", list)():
        graph = function.function.graph.as_graph_def()
        nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
        if any("Random" in node.op for node in nodes):
            return True
    return False
