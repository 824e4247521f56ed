"""Small networks for tests, some shared with benchmarks, and large ones that are built only once."""

from __future__ import annotations

import functools

import keras

from benchmarks.small_networks import (
    BODIES,
    classify,
    conv_bn,
    count_macs,
    draw_weights,
    make,
    randomize,
    residual,
    residual_network,
    space_of,
)
from tas_tf.graph.graph import Graph
from tas_tf.zoo.loading import load_network

__all__ = [
    "BODIES",
    "classify",
    "conv_bn",
    "count_macs",
    "draw_weights",
    "graph_of",
    "make",
    "network",
    "randomize",
    "residual",
    "residual_network",
    "space_of",
]


@functools.cache
def network(name: str, num_classes: int = 10) -> keras.Model:
    """A network for images of 32 pixels, shared by tests that don't change it; large ones take seconds to build."""
    return load_network(name, num_classes=num_classes)


@functools.cache
def graph_of(name: str, num_classes: int = 10) -> Graph:
    """The graph of such a network."""
    return Graph.from_model(network(name, num_classes))
