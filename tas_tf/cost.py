"""What a shape costs: multiply-adds or parameters, one formula for exact and for expected sizes.

A multiply-add (MAC) is one multiplication with one addition. Those of convolutions and matrix products count, the
projections that pruning adds included; biases, normalisation, activations and pooling don't.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tas_tf.channels import Segment
from tas_tf.errors import UserError
from tas_tf.graph import Graph, Node
from tas_tf.kinds import CONV_CLASSES, TRANSPOSED_CLASSES, Kind
from tas_tf.shape import ActiveChannels, Shape
from tas_tf.space import SearchSpace

KINDS = ("macs", "params")


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


def _terms(space: SearchSpace, kind: str) -> Iterator[Term]:
    for node in space.graph:
        kernels = list(_kernel_terms(space, node))
        if kind == "macs":
            for term in kernels:
                factor = term.factor * _applications(space.graph, node)
                yield Term(term.layer, factor, term.reads, term.makes)
        else:
            yield from kernels
            rest = node.num_params - sum(_at_full_width(term) for term in kernels)
            if rest and node.kind is Kind.OPAQUE:
                yield Term(node.name, rest)
            elif rest:
                yield Term(node.name, rest // node.channels, (), space.segments[node.name])
    for add, identity, reads, makes in space.projections():
        factor = space.graph[identity].positions if kind == "macs" else 1
        yield Term(add, factor, reads, makes, tuple(zip(reads, makes, strict=True)))


def _at_full_width(term: Term) -> int:
    reads, makes = (sum(segment.width for segment in side) if side else 1 for side in (term.reads, term.makes))
    return term.factor * reads * makes


def total(factors: Any, reads: Any, makes: Any, present: Any) -> Any:
    """The formula: exact on whole numbers, expected on means and probabilities.

    Args:
        factors: `[terms]`.
        reads: Channels read, `[..., terms]`.
        makes: Channels made, `[..., terms]`.
        present: 1 where the term's layer is there, else 0, or its probability, `[..., terms]`.

    Returns:
        Cost, `[...]`.
    """
    summands = reads * makes * present * factors
    return summands @ np.ones((len(factors), 1), factors.dtype)


class CostModel:
    """The cost of shapes of one network.

    Widths and depths are given in the order of the space's units and stages, any number of shapes at once.
    """

    def __init__(self, space: SearchSpace, kind: str = "macs") -> None:
        if kind not in KINDS:
            raise UserError(f"Cost must be one of {', '.join(KINDS)}. Received: {kind!r}.")
        self.space = space
        self.kind = kind
        self.terms = tuple(_terms(space, kind))
        self.sources = {choice.name: place for place, choice in enumerate((*space.units, *space.stages))}
        self.factors = np.array([term.factor for term in self.terms], np.int64)
        self.reads = self._linear([term.reads for term in self.terms])
        self.makes = self._linear([term.makes for term in self.terms])
        self._stage_index = {stage.name: place for place, stage in enumerate(space.stages)}
        blocks = [space.block_of.get(term.layer, ("", 1)) for term in self.terms]
        #: Stage (by place) and block number of each term's layer; block 1 is always there.
        self.block_stage = np.array([self._stage_index.get(stage, 0) for stage, _ in blocks], np.int64)
        self.block_number = np.array([number for _, number in blocks], np.int64)
        self.full = self.of(Shape.full(space))

    def _linear(self, sides: list[tuple[Segment, ...]]) -> np.ndarray:
        """Counts of channels as linear forms of the sources' widths, a constant last: `[sources + 1, terms]`."""
        form = np.zeros((len(self.sources) + 1, len(sides)), np.int64)
        for place, segments in enumerate(sides):
            if not segments:
                form[-1, place] = 1
            for segment in segments:
                if segment.source is None:
                    form[-1, place] += segment.width
                else:
                    form[self.sources[segment.source], place] += 1
        return form

    def of(self, shape: Shape) -> int:
        """Exact cost of a shape."""
        widths = [[shape.widths[unit.name] for unit in self.space.units]]
        depths = [[shape.depths[stage.name] for stage in self.space.stages]]
        return int(self.exact(np.array(widths, np.int64), np.array(depths, np.int64))[0])

    def exact(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Exact costs.

        Args:
            widths: `[shapes, units]`.
            depths: `[shapes, stages]`.

        Returns:
            `[shapes]`, whole numbers.
        """
        sizes = self._sizes(widths, depths)
        present = np.ones((len(sizes), len(self.terms)))
        if self.space.stages:
            present *= depths[:, self.block_stage] >= self.block_number
        for place, term in enumerate(self.terms):
            if term.differ:
                same = np.ones(len(sizes), bool)
                for identity, branch in term.differ:
                    same &= self._size(sizes, identity) == self._size(sizes, branch)
                present[:, place] *= ~same
        # Matrix products on whole numbers are slow in NumPy; float64 is exact up to 2^53, far above any network.
        numbers = sizes.astype(np.float64)
        costs = total(self.factors.astype(np.float64), numbers @ self.reads, numbers @ self.makes, present)
        return costs[:, 0].astype(np.int64)

    def _sizes(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Widths of units and of what stages hand on, and a constant 1: `[shapes, sources + 1]`."""
        count = len(widths)
        stages = np.zeros((count, len(self.space.stages)), np.int64)
        sizes = np.concatenate([widths, stages, np.ones((count, 1), np.int64)], axis=1)
        for place, stage in enumerate(self.space.stages):
            ends = [self.space.segments[end] for end in stage.ends]
            if any(len(segments) != 1 for segments in ends):
                continue  # nobody reads them as the stage's
            by_depth = np.stack([self._size(sizes, segments[0]) for segments in ends], axis=1)
            sizes[:, self.sources[stage.name]] = by_depth[np.arange(count), depths[:, place] - 1]
        return sizes

    def _size(self, sizes: np.ndarray, segment: Segment) -> np.ndarray:
        if segment.source is None:
            return np.full(len(sizes), segment.width, np.int64)
        return sizes[:, self.sources[segment.source]]


def projections(space: SearchSpace, shape: Shape) -> list[dict[str, Any]]:
    """The 1x1 convolutions that a shape makes necessary: `{layer, in, out, macs}`."""
    active = ActiveChannels(space, shape)
    found = []
    for add, identity, reads, makes in space.projections():
        stage, block = space.block_of.get(add, ("", 1))
        kept = not stage or shape.depths[stage] >= block
        if kept and any(active.width(one) != active.width(other) for one, other in zip(reads, makes, strict=True)):
            width_in, width_out = (sum(map(active.width, side)) for side in (reads, makes))
            macs = space.graph[identity].positions * width_in * width_out
            found.append({"layer": add, "in": width_in, "out": width_out, "macs": macs})
    return found
