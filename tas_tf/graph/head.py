"""Splits the final softmax or sigmoid off a network, so that the rest computes logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from tas_tf.errors import UserError
from tas_tf.graph.kinds import ACTIVATION_BY_CLASS, Kind, activation_name
from tas_tf.graph.nodes import Node


class Split(NamedTuple):
    """Nodes without the last activation of an output."""

    nodes: tuple[Node, ...]
    output: str  # the node that computes the logits
    head: Node | None  # the softmax or sigmoid, or the layer that includes it


#: Activations that turn logits into probabilities.
_SPLIT = ("softmax", "sigmoid")


def split_head(network: str, nodes: tuple[Node, ...], output: str) -> Split:
    """Takes the final softmax or sigmoid out of the nodes; a layer that others read, too, stays.

    Args:
        network: Name of the network.
        nodes: All nodes.
        output: Name of the node that makes the output.

    Raises:
        UserError: If the outputs have no axis for channels, or the activation can't be told from the layer.
    """
    by_name = {node.name: node for node in nodes}
    last = by_name[output]
    if len(last.shape) < 2:
        raise UserError(
            f"`model` must end in numbers for each image, [batch, outputs]. Received: {last.shape} from layer "
            f"`{output}`."
        )
    head = None
    if _activation(last) in _SPLIT:
        head = last
        readers = [node.name for node in nodes if output in node.inputs]
        if _is_activation_alone(last):
            nodes = tuple(node for node in nodes if node.name != output or readers)
            output = last.inputs[0]
        elif readers:
            raise UserError(
                f"`model` ({network}): the output of layer `{output}` ({last.class_name}) goes on to `{readers[0]}`. "
                f"Expected its activation, {_activation(last)}, as a layer of its own."
            )
        else:
            last = replace(last, config={**last.config, "activation": "linear"})
            nodes = tuple(last if node.name == output else node for node in nodes)
        last = {node.name: node for node in nodes}[output]
    else:
        _check_last(by_name, last, network)
    nodes = tuple(_in_float32(node) if node.name == output else node for node in nodes)
    return Split(nodes, output, None if head is None else _in_float32(head))


def _in_float32(node: Node) -> Node:
    """Switches a mixed-precision node to float32: in half precision, many class scores are tied."""
    dtype = node.config.get("dtype")
    name = dtype["config"].get("name", "") if isinstance(dtype, Mapping) else dtype or ""
    return replace(node, config={**node.config, "dtype": "float32"}) if name.startswith("mixed_") else node


def _is_activation_alone(node: Node) -> bool:
    return node.class_name in ("Softmax", "Activation") or node.class_name in ACTIVATION_BY_CLASS


def _activation(node: Node) -> str:
    """Name of the last activation that a node applies to the scores, `linear` if it has none."""
    if node.class_name == "Activation":
        return activation_name(node.config["activation"])
    known = ACTIVATION_BY_CLASS.get(node.class_name)
    return node.activation if known is None else (*known.names, node.class_name)[0]


def last_activation(by_name: Mapping[str, Node], output: str, head: Node | None) -> str:
    """Name of the last activation of a network, `linear` if it has none.

    Args:
        by_name: Nodes by name.
        output: Name of the node that computes the logits.
        head: The softmax or sigmoid after it, if there is one.
    """
    if head is not None:
        return _activation(head)
    return _activation(_source_of(by_name, by_name[output]))


def _check_last(by_name: Mapping[str, Node], last: Node, network: str) -> None:
    """Rejects probabilities that are reshaped: training works on logits, which then can't be found.

    Raises:
        UserError: The network ends so.
    """
    node = _source_of(by_name, last)
    if node is not last and _activation(node) in _SPLIT:
        raise UserError(
            f"`model` ({network}) ends in `{_activation(node)}` (layer `{node.name}`) and then `{last.name}` "
            f"({last.class_name}). Expected the activation as the last operation."
        )


def _source_of(by_name: Mapping[str, Node], node: Node) -> Node:
    """The last node before a network's end that does more than reshape."""
    while len(node.inputs) == 1 and _passes_scores(node):
        node = by_name[node.inputs[0]]
    return node


def _passes_scores(node: Node) -> bool:
    if node.kind in (Kind.FLATTEN, Kind.RESHAPE) or node.class_name in ("Identity", "Dropout"):
        return True
    return node.class_name == "Activation" and _activation(node) == "linear"
