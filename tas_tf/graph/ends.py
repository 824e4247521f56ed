"""The inputs and outputs of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tas_tf.graph.nodes import Node


@dataclass(frozen=True)
class End:
    """One output of a network.

    Attributes:
        name: Name of the output: its key if the outputs are a dictionary, otherwise the name of its layer.
        output: Name of the node that computes its logits.
        head: The final softmax or sigmoid, which isn't part of the nodes: that layer itself, or the last layer with its
            activation.
    """

    name: str
    output: str
    head: Node | None = None

    @property
    def last(self) -> str:
        """Name of the layer that makes the output."""
        return self.output if self.head is None else self.head.name


@dataclass(frozen=True)
class Packing:
    """Several inputs or outputs that were packed into one, see `tas_tf.graph.packing`.

    Attributes:
        input_names: Names of the inputs, in order: keys if they are a dictionary, otherwise names of layers.
        inputs: The original inputs, in the same order.
        input_structure: The inputs' nodes by name, in the list or dictionary in which the network takes them.
        ends: The outputs, in order.
        output_structure: Names of the outputs, in the list or dictionary in which the network returns them.
        added: Names of the nodes that unpack the input and pack the outputs.
    """

    input_names: tuple[str, ...]
    inputs: tuple[Node, ...]
    input_structure: Any
    ends: tuple[End, ...]
    output_structure: Any
    added: frozenset[str]
