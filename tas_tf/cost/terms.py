"""What makes up the cost of a network, layer by layer: multiply-adds, parameters, bytes of its TFLite file.

A multiply-add (MAC) is one multiplication with one addition. Those of convolutions and matrix products count, the
projections that pruning adds included; biases, normalisation, activations and pooling don't.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tas_tf.graph.graph import Graph, Node
from tas_tf.graph.kinds import (
    ACTIVATION_BY_CLASS,
    ACTIVATION_BY_NAME,
    CONV_CLASSES,
    CONVOLVES,
    TRANSPOSED_CLASSES,
    Kind,
)
from tas_tf.space.channels import Segment
from tas_tf.space.space import SearchSpace

#: Bytes of a float32 weight.
_WEIGHT = 4


@dataclass(frozen=True)
class Term:
    """A summand of the cost: `factor x channels read x channels made`, where its layer is there.

    Attributes:
        layer: The node that causes it.
        factor: What doesn't depend on the shape, such as kernel size x positions.
        reads: Segments read; none counts as 1.
        makes: Segments made; none counts as 1.
        differ: Identity and branch of a projection, which exists only where their widths differ.
    """

    layer: str
    factor: int
    reads: tuple[Segment, ...] = ()
    makes: tuple[Segment, ...] = ()
    differ: tuple[tuple[Segment, Segment], ...] = ()


def kernel_area(node: Node) -> int:
    """Positions that one output looks at."""
    size = node.config.get("kernel_size", 1)
    return int(np.prod(size))


def _kernel_terms(space: SearchSpace, node: Node) -> Iterator[Term]:
    """Terms of the weights that are applied at every position, as if at one."""
    if not node.inputs:
        return
    reads, makes = space.read_segments(node.inputs[0]), space.segments[node.name]
    if node.kind in (Kind.CONV, Kind.DENSE):
        yield Term(node.name, kernel_area(node), reads, makes)
    elif node.kind is Kind.DEPTHWISE:
        yield Term(node.name, kernel_area(node), (), makes)
    elif node.kind is Kind.SEPARABLE:
        yield Term(node.name, kernel_area(node), reads)
        yield Term(node.name, 1, reads, makes)
    elif node.kind is Kind.OPAQUE:
        weights = opaque_kernel_size(space.graph, node)
        if weights:
            yield Term(node.name, weights)


def opaque_kernel_size(graph: Graph, node: Node) -> int:
    """Kernel weights of convolutions that are kept as they are; 0 for other layers."""
    channels = graph[node.inputs[0]].channels
    config, area = node.config, kernel_area(node)
    if node.class_name in TRANSPOSED_CLASSES:
        return area * channels * config["filters"]
    if node.class_name not in CONV_CLASSES:
        return 0
    if node.class_name.startswith("Depthwise"):
        return area * channels * config["depth_multiplier"]
    if node.class_name.startswith("Separable"):
        return channels * config["depth_multiplier"] * (area + config["filters"])
    return area * channels // config["groups"] * config["filters"]


def _applications(graph: Graph, node: Node) -> int:
    """How many times the weights of a layer are applied to one image."""
    return (graph[node.inputs[0]] if node.class_name in TRANSPOSED_CLASSES else node).positions


def mac_terms(space: SearchSpace) -> Iterator[Term]:
    """Multiply-adds for one image."""
    for node in space.graph:
        for term in _kernel_terms(space, node):
            factor = term.factor * _applications(space.graph, node)
            yield Term(term.layer, factor, term.reads, term.makes)
    for add, identity, reads, makes in space.projections():
        yield Term(add, space.graph[identity].positions, reads, makes, _pairs(reads, makes))


def param_terms(space: SearchSpace) -> Iterator[Term]:
    """All weights, those that aren't trained included."""
    for node in space.graph:
        yield from _kernel_terms(space, node)
        yield from _vector_terms(space, node)
    for add, _, reads, makes in space.projections():
        yield Term(add, 1, reads, makes, _pairs(reads, makes))


def byte_terms(space: SearchSpace, op_bytes: int) -> Iterator[Term]:
    """Bytes of the float32 TFLite file: weights as they are deployed, and about so many for each operation.

    A convolution always has a bias there, and takes in the batch normalisation behind it.

    Args:
        space: The network.
        op_bytes: What an operation takes besides weights: its options, and names and shapes of its tensors.
    """
    for node in space.graph:
        for term in _kernel_terms(space, node):
            yield Term(term.layer, _WEIGHT * term.factor, term.reads, term.makes)
        makes = space.segments[node.name]
        if node.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.SEPARABLE):
            yield Term(node.name, _WEIGHT, (), makes)
            if node.kind is Kind.SEPARABLE:
                yield Term(node.name, _WEIGHT, (), space.read_segments(node.inputs[0]))
        elif node.kind is Kind.BATCH_NORM:
            if not _is_folded(space.graph, node):
                yield Term(node.name, 2 * _WEIGHT, (), makes)
        else:
            for term in _vector_terms(space, node):
                yield Term(term.layer, _WEIGHT * term.factor, term.reads, term.makes)
        yield Term(node.name, op_bytes * _num_operations(space.graph, node))
    if space.graph.head is not None:
        yield Term(space.graph.output, op_bytes)
    for add, _, reads, makes in space.projections():
        differ = _pairs(reads, makes)
        yield Term(add, _WEIGHT, reads, makes, differ)
        yield Term(add, _WEIGHT, (), makes, differ)
        yield Term(add, op_bytes, differ=differ)


def _is_folded(graph: Graph, norm: Node) -> bool:
    """Whether a batch normalisation becomes part of the convolution before it."""
    source = graph[norm.inputs[0]]
    alone = graph.consumers[source.name] == (norm.name,)
    return alone and source.kind in CONVOLVES and source.activation == "linear"


def _num_operations(graph: Graph, node: Node) -> int:
    """About how many operations a node becomes; what is off by one hardly matters, only how blocks compare."""
    if node.kind is Kind.INPUT or node.class_name in _VANISH:
        return 0
    if node.kind is Kind.BATCH_NORM:
        return 0 if _is_folded(graph, node) else 2
    by_class = {"LayerNormalization": 6, "SeparableConv1D": 2, "SeparableConv2D": 2, "Flatten": 4, "Reshape": 4}
    activation = ACTIVATION_BY_NAME.get(node.activation)
    own = 0 if node.class_name == "Activation" else by_class.get(node.class_name, 1)
    return own + (1 if activation is None else activation.num_operations)


#: Layers that leave nothing in a file, or merge into the operation before them.
_VANISH = frozenset(
    [
        *("ActivityRegularization", "Dropout", "GaussianDropout", "GaussianNoise", "Identity", "SpatialDropout1D"),
        *("SpatialDropout2D", "SpatialDropout3D", "StochasticDepth"),
        *(name for name, activation in ACTIVATION_BY_CLASS.items() if not activation.num_operations),
    ]
)


def _vector_terms(space: SearchSpace, node: Node) -> Iterator[Term]:
    """Terms of the weights that are no kernels: so many for each channel."""
    rest = node.num_params - sum(at_full_width(term) for term in _kernel_terms(space, node))
    if rest and node.kind is Kind.OPAQUE:
        yield Term(node.name, rest)
    elif rest:
        yield Term(node.name, rest // node.channels, (), space.segments[node.name])


def _pairs(reads: tuple[Segment, ...], makes: tuple[Segment, ...]) -> tuple[tuple[Segment, Segment], ...]:
    return tuple(zip(reads, makes, strict=True))


def at_full_width(term: Term) -> int:
    """What a term comes to in the unpruned network, were its layer there."""
    reads, makes = (sum(segment.width for segment in side) if side else 1 for side in (term.reads, term.makes))
    return term.factor * reads * makes
