"""Calls the layers of a graph's nodes one after another, as the original model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tas_tf.graph.layers import call_layer
from tas_tf.graph.nodes import Node


class Caller:
    """Makes each layer once, however often it is called, and calls it once for all its outputs."""

    def __init__(self) -> None:
        self._layers: dict[str, Any] = {}  # by the node of their first call
        self._outputs: dict[str, Any] = {}  # of calls with several outputs, by the node of the first

    def layer(self, node: Node, make: Callable[[], Any]) -> Any:
        """Returns the layer of a node, which is made unless an earlier node shares it."""
        first = node.shares or node.name
        if first not in self._layers:
            self._layers[first] = make()
        return self._layers[first]

    def call(self, node: Node, make: Callable[[], Any], tensors: Mapping[str, Any]) -> Any:
        """Computes the output of a node.

        Args:
            node: The node.
            make: Makes its layer.
            tensors: Tensors by the name of the node that makes each.
        """
        if node.output is None:
            return call_layer(self.layer(node, make), node, tensors)
        if node.sibling is None:
            self._outputs[node.name] = call_layer(self.layer(node, make), node, tensors)
        return keras.tree.flatten(self._outputs[node.sibling or node.name])[node.output]
