"""Splits the final softmax off a classifier, so that the rest computes logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from tas_tf.errors import UserError
from tas_tf.graph.kinds import ACTIVATION_BY_CLASS, Kind, activation_name
from tas_tf.graph.nodes import Node


class GraphParts(NamedTuple):
    """The fields of a `Graph`."""

    network: str
    nodes: tuple[Node, ...]
    output: str  # the node that computes the logits
    head: Node | None  # the softmax, or the classifier layer that includes it


def split_softmax(network: str, nodes: tuple[Node, ...], output: str) -> GraphParts:
    """Takes the final softmax out of the nodes.

    Raises:
        UserError: If the model doesn't end in scores for at least two classes.
    """
    by_name = {node.name: node for node in nodes}
    last = by_name[output]
    if len(last.shape) != 2:
        raise UserError(
            f"`model` must end in one vector of class scores per image, [batch, classes]. Received: {last.shape} "
            f"from layer `{output}`. Add a pooling layer or `Flatten` and a `Dense` layer after it."
        )
    head = None
    if _activation(last) == "softmax":
        head = last
        if _is_activation_alone(last):
            nodes = tuple(node for node in nodes if node.name != output)
            output = last.inputs[0]
        else:
            last = replace(last, config={**last.config, "activation": "linear"})
            nodes = tuple(last if node.name == output else node for node in nodes)
        last = {node.name: node for node in nodes}[output]
    _check_scores(by_name, last, network)
    nodes = tuple(_in_float32(node) if node.name == output else node for node in nodes)
    return GraphParts(network, nodes, output, None if head is None else _in_float32(head))


def _in_float32(node: Node) -> Node:
    """Switches a mixed-precision node to float32: in half precision, many class scores are tied."""
    dtype = node.config.get("dtype")
    name = dtype["config"].get("name", "") if isinstance(dtype, Mapping) else dtype or ""
    return replace(node, config={**node.config, "dtype": "float32"}) if name.startswith("mixed_") else node


def _is_activation_alone(node: Node) -> bool:
    return node.class_name in ("Softmax", "Activation")


def _activation(node: Node) -> str:
    """Name of the last activation that a node applies to the scores, `linear` if it has none."""
    if node.class_name == "Activation":
        return activation_name(node.config["activation"])
    if node.class_name == "Softmax":
        return "softmax"
    return node.class_name if node.class_name in ACTIVATION_BY_CLASS else node.activation


def _check_scores(by_name: dict[str, Node], last: Node, network: str) -> None:
    if last.channels < 2:
        raise UserError(
            f"`model` must have at least 2 classes. Received: {last.channels} output (layer `{last.name}`)."
        )
    node = last
    while len(node.inputs) == 1 and _passes_scores(node):
        node = by_name[node.inputs[0]]
    activation = _activation(node)
    if activation != "linear":
        raise UserError(
            f"`model` ({network}) ends in the activation `{activation}` (layer `{node.name}`). Expected class scores: "
            "logits, or a softmax as the last operation. Multi-label and regression models are not supported."
        )


def _passes_scores(node: Node) -> bool:
    if node.kind in (Kind.FLATTEN, Kind.RESHAPE) or node.class_name in ("Identity", "Dropout"):
        return True
    return node.class_name == "Activation" and _activation(node) == "linear"
