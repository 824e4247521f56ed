"""The terms of a network's cost, layer by layer: multiply-adds, parameters, bytes of its TFLite file, latency.

A multiply-add (MAC) is one multiplication with one addition. Convolutions and matrix products count, including the
projections that pruning adds. Biases, normalisation, activations and pooling don't count.
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
from tas_tf.space.channels import Segment, differing_pairs
from tas_tf.space.space import SearchSpace

#: Bytes of a float32 weight.
_WEIGHT = 4


@dataclass(frozen=True)
class Tiles:
    """How many channels a kernel computes for a number of channels: it works on whole tiles.

    A kernel has tiles of `largest` channels. For few channels, some have smaller ones: the next of `smallest`, twice,
    four times as many, and so on, up to `largest`.

    Attributes:
        smallest: Channels of the smallest tile.
        largest: Channels of the largest tile: `smallest` times a power of two.

    Example:
        >>> Tiles(16, 32).count([3, 16, 17, 33, 65]).tolist(), Tiles(8, 8).count(9).tolist()
        ([16, 16, 32, 64, 96], 16)
    """

    smallest: int = 1
    largest: int = 1

    def count(self, channels: np.ndarray | int) -> np.ndarray:
        """Channels computed for the given numbers of channels; 0 for none."""
        return count_tiled(np.asarray(channels), self.smallest, self.largest)


def count_tiled(channels: np.ndarray, smallest: np.ndarray | int, largest: np.ndarray | int) -> np.ndarray:
    """Channels in whole tiles, see `Tiles`, for arrays that broadcast.

    Args:
        channels: Numbers of channels.
        smallest: Channels of the smallest tiles.
        largest: Channels of the largest tiles.
    """
    if np.all(np.asarray(largest) == 1):
        return channels
    doublings = np.ceil(np.log2(np.maximum(channels, 1) / smallest))
    small = smallest * 2.0 ** np.maximum(doublings, 0)
    whole = -(-channels // largest) * largest
    return np.where(channels > 0, np.minimum(small, whole), 0).astype(np.asarray(channels).dtype)


#: Kernels that work channel by channel.
SINGLE = Tiles()


@dataclass(frozen=True)
class Term:
    """A summand of the cost: `factor x channels read x channels made` if its layer exists, else 0.

    Attributes:
        layer: Name of the node that has the cost.
        factor: Factor that doesn't depend on the shape, such as kernel size x positions.
        reads: Segments read; an empty tuple counts as 1.
        makes: Segments made; an empty tuple counts as 1.
        differ: Pairs of identity and branch segments. A projection exists only if the widths of a pair differ.
        read_tiles: How the channels read are counted.
        make_tiles: How the channels made are counted.
    """

    layer: str
    factor: int
    reads: tuple[Segment, ...] = ()
    makes: tuple[Segment, ...] = ()
    differ: tuple[tuple[Segment, Segment], ...] = ()
    read_tiles: Tiles = SINGLE
    make_tiles: Tiles = SINGLE


def kernel_area(node: Node) -> int:
    """Number of input positions that one output position reads."""
    size = node.config.get("kernel_size", 1)
    return int(np.prod(size))


def _kernel_terms(space: SearchSpace, node: Node) -> Iterator[Term]:
    """Terms of the weights that are applied at every position, counted once."""
    if not node.inputs:
        return
    reads, makes = space.read_segments(node.inputs[0]), space.segments[node.name]
    if node.kind in (Kind.CONV, Kind.TRANSPOSED, Kind.DENSE):
        yield Term(node.name, kernel_area(node), reads, makes)
    elif node.kind is Kind.DEPTHWISE:
        yield Term(node.name, kernel_area(node) * space.graph.group_sizes(node)[0], (), makes)
    elif node.kind is Kind.SEPARABLE:
        multiplier = node.config["depth_multiplier"]
        yield Term(node.name, kernel_area(node) * multiplier, reads)
        yield Term(node.name, multiplier, reads, makes)
    elif node.kind is Kind.OPAQUE:
        weights = opaque_kernel_size(space.graph, node)
        if weights:
            yield Term(node.name, weights)


def opaque_kernel_size(graph: Graph, node: Node) -> int:
    """Number of kernel weights of a convolution that can't be pruned; 0 for other layers."""
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
    """Number of positions at which a layer's kernel is applied to one image."""
    return (graph[node.inputs[0]] if node.class_name in TRANSPOSED_CLASSES else node).positions


def mac_terms(space: SearchSpace) -> Iterator[Term]:
    """Yields the terms of the multiply-adds for one image."""
    for node in space.graph:
        for term in _kernel_terms(space, node):
            factor = term.factor * _applications(space.graph, node)
            yield Term(term.layer, factor, term.reads, term.makes)
    for add, identity, reads, makes in space.projections():
        yield Term(add, space.graph[identity].positions, reads, makes, differing_pairs(reads, makes))


def param_terms(space: SearchSpace) -> Iterator[Term]:
    """Yields the terms of the number of weights, including those that aren't trained."""
    for node in space.graph:
        if not node.shares:
            yield from _kernel_terms(space, node)
            yield from _vector_terms(space, node)
    for add, _, reads, makes in space.projections():
        yield Term(add, 1, reads, makes, differing_pairs(reads, makes))


def byte_terms(space: SearchSpace, op_bytes: int) -> Iterator[Term]:
    """Yields the terms of the float32 TFLite file's bytes: the deployed weights, and a constant per operation.

    In the file, a convolution always has a bias and includes the batch normalisation after it.

    Args:
        space: Search space of the network.
        op_bytes: Bytes per operation besides weights: its options, and names and shapes of its tensors.
    """
    for node in space.graph:
        if node.shares:
            yield Term(node.name, op_bytes * num_operations(space.graph, node))
            continue
        for term in _kernel_terms(space, node):
            yield Term(term.layer, _WEIGHT * term.factor, term.reads, term.makes)
        makes = space.segments[node.name]
        if node.kind in (Kind.CONV, Kind.TRANSPOSED, Kind.DEPTHWISE, Kind.SEPARABLE):
            yield Term(node.name, _WEIGHT, (), makes)
            if node.kind is Kind.SEPARABLE:
                between = _WEIGHT * node.config["depth_multiplier"]
                yield Term(node.name, between, (), space.read_segments(node.inputs[0]))
        elif node.kind is Kind.BATCH_NORM:
            if not _is_folded(space.graph, node):
                yield Term(node.name, 2 * _WEIGHT, (), makes)
        else:
            for term in _vector_terms(space, node):
                yield Term(term.layer, _WEIGHT * term.factor, term.reads, term.makes)
        yield Term(node.name, op_bytes * num_operations(space.graph, node))
    for end in space.graph.ends:
        if end.head is not None:
            yield Term(space.graph.output, op_bytes)
    for add, _, reads, makes in space.projections():
        differ = differing_pairs(reads, makes)
        yield Term(add, _WEIGHT, reads, makes, differ)
        yield Term(add, _WEIGHT, (), makes, differ)
        yield Term(add, op_bytes, differ=differ)


def _is_folded(graph: Graph, norm: Node) -> bool:
    """Whether the converter folds a batch normalisation into the convolution before it."""
    source = graph[norm.inputs[0]]
    alone = graph.consumers[source.name] == (norm.name,)
    return alone and source.kind in CONVOLVES and source.activation == "linear"


def num_operations(graph: Graph, node: Node) -> int:
    """Estimates how many operations a node becomes. Errors of one hardly matter: only ratios between blocks count."""
    if node.kind is Kind.INPUT or node.class_name in _VANISH:
        return 0
    if node.kind is Kind.BATCH_NORM:
        return 0 if _is_folded(graph, node) else 2
    activation = ACTIVATION_BY_NAME.get(node.activation)
    own = 0 if node.class_name == "Activation" else _OPERATIONS.get(node.class_name, 1)
    return own + (1 if activation is None else activation.num_operations)


#: How many operations layers become that don't become a single one.
_OPERATIONS = {
    **{"LayerNormalization": 6, "GroupNormalization": 8, "RMSNormalization": 5},
    **{"SeparableConv1D": 2, "SeparableConv2D": 2, "Flatten": 4, "Reshape": 4},
}
#: Layers that leave nothing in a file, or merge into the operation before them.
_VANISH = frozenset(
    [
        *("ActivityRegularization", "Dropout", "GaussianDropout", "GaussianNoise", "Identity", "SpatialDropout1D"),
        *("SpatialDropout2D", "SpatialDropout3D", "StochasticDepth"),
        *(name for name, activation in ACTIVATION_BY_CLASS.items() if not activation.num_operations),
    ]
)


def _vector_terms(space: SearchSpace, node: Node) -> Iterator[Term]:
    """Terms of the weights other than kernels, which have a fixed number of values per channel."""
    rest = node.num_params - sum(at_full_width(term) for term in _kernel_terms(space, node))
    if rest and node.kind is Kind.OPAQUE:
        yield Term(node.name, rest)
    elif rest:
        yield Term(node.name, rest // node.channels, (), space.segments[node.name])


def at_full_width(term: Term) -> int:
    """Value of a term in the unpruned network, as if its layer existed."""
    reads, makes = (sum(segment.width for segment in side) if side else 1 for side in (term.reads, term.makes))
    return term.factor * reads * makes
