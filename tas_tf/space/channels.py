"""Follows channels through the graph: which layer makes them, which convolutions are coupled, which are frozen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from scipy.cluster.hierarchy import DisjointSet

from tas_tf.graph.graph import Graph, Node
from tas_tf.graph.kinds import (
    CONV_CLASSES,
    MAKES_CHANNELS,
    MERGES,
    TRANSPARENT,
    TRANSPOSED_CLASSES,
    Kind,
    activation_kind,
)
from tas_tf.graph.nodes import list_refs
from tas_tf.graph.operations import padded_channels, selected_channels
from tas_tf.space.stages import before_padding, find_identities


@dataclass(frozen=True)
class Segment:
    """Consecutive channels from one source.

    A grouped convolution or depth multiplier may make another number of channels than its source has. A shape keeps the
    same share of both.

    Attributes:
        source: The unit or stage that sets the number of channels; None for channels that are never dropped.
        width: Channels in the unpruned network.
    """

    source: str | None
    width: int


class ChannelFlow:
    """Finds the segments of every tensor in one pass over the graph.

    Attributes:
        segments: Segments of each node's own output. Their sources are names of units or stages.
        groups: Groups of coupled convolutions. Groups and their members are in graph order.
        frozen: Layers whose channels are never dropped, with the reason.
        identities: For each residual Add, the inputs that bypass its other inputs.
        norms: The BatchNormalization that belongs to each searched convolution, if any.
        steps: For each group's first convolution, the number that its widths must be multiples of.
    """

    def __init__(
        self, graph: Graph, stage_ends: Mapping[str, tuple[str, ...]], couple_trunk: bool, search_dense: bool
    ) -> None:
        self.graph = graph
        self.identities = find_identities(graph)
        self._coupled = DisjointSet()  # layers that make channels, added in graph order
        self._steps: dict[str, int] = {}  # what a convolution's widths must be multiples of
        self._reasons: dict[str, str] = {}  # why a group is frozen, by its representative in `_coupled`
        self._ends = stage_ends
        self._stage_at = {ends[-1]: stage for stage, ends in stage_ends.items()}
        self._raw: dict[str, tuple[Segment, ...]] = {}
        for node in graph:
            self._raw[node.name] = self._visit_again(node) if node.shares else self._visit(node)
            if node.name in self._stage_at:
                self._end_stage(self._stage_at[node.name], couple_trunk)
        self._freeze(self._read(graph.output), "it makes the outputs")
        if not search_dense:
            self._freeze_lone_dense()
        self._settle()

    def _visit(self, node: Node) -> tuple[Segment, ...]:
        inputs = [self._read(name) for name in node.inputs]
        if node.kind in MAKES_CHANNELS:
            self._coupled.add(node.name)
            made = (Segment(node.name, node.channels),)
            if activation_kind(node.activation) is Kind.OPAQUE:
                self._freeze(made, _why_kept_with(node.activation))
            return made
        if node.kind in (Kind.DEPTHWISE, Kind.GROUP_NORM):
            return self._filter_groups(node, inputs[0])
        if node.kind in TRANSPARENT | {Kind.LAYER_NORM, Kind.UNIT_NORM}:
            return inputs[0]
        if node.kind in MERGES:
            return self._merge(node, inputs)
        if node.kind is Kind.CONCAT:
            return self._concatenate(node, inputs)
        if node.kind is Kind.FLATTEN:
            return inputs[0] * self.graph[node.inputs[0]].positions
        if node.kind is Kind.SELECT:
            return self._select(node, inputs[0])
        if node.kind is Kind.PAD:
            before, after = padded_channels(node)
            return (*_constant(before), *inputs[0], *_constant(after))
        if node.kind is Kind.REDUCE:
            return _constant(node.channels)
        if node.kind is Kind.RESHAPE and node.channels == self.graph[node.inputs[0]].channels:
            return inputs[0]
        for segments in inputs:
            self._freeze(segments, f"its channels reach `{node.name}` ({node.class_name}), which needs them all")
        return _constant(node.channels)

    def _visit_again(self, node: Node) -> tuple[Segment, ...]:
        """Visits a further call of a layer, which reads and makes the same channels as the first call."""
        if node.kind is Kind.OPAQUE:
            return self._visit(node)
        first = self.graph[node.shares]
        for name, other in zip(first.inputs, node.inputs, strict=True):
            before, now = self._read(name), self._read(other)
            if not self._differ(node, [before, now]):
                self._couple(before, now)
        return self._raw[first.name] if node.kind in MAKES_CHANNELS else self._visit(node)

    def _select(self, node: Node, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Takes consecutive channels. Segments that are cut are frozen."""
        start, stop = selected_channels(node, self.graph[node.inputs[0]].channels)
        taken: list[Segment] = []
        place = 0
        for segment in segments:
            low, high = max(start, place), min(stop, place + segment.width)
            place += segment.width
            if 0 < high - low < segment.width:
                self._freeze((segment,), f"`{node.name}` ({node.class_name}) takes a part of its channels")
                segment = Segment(None, high - low)
            taken += [segment] if low < high else []
        return tuple(taken)

    def _filter_groups(self, node: Node, read: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Segments of a layer that acts on groups of channels, which are kept or dropped as a whole.

        Groups are consecutive channels, so that the first channels stay the first ones on both sides.
        """
        channels, filters = self.graph.group_sizes(node)
        if any(segment.width % channels for segment in read):
            self._freeze(read, f"its channels don't fall evenly into the groups of `{node.name}`")
            return (Segment(None, node.channels),)
        for segment in read:
            if segment.source is not None:
                # The fewest channels of the source that make whole groups.
                step = (channels / Fraction(segment.width, self._full_width(segment.source))).numerator
                for conv in self._convs(segment):
                    if conv is not None:
                        self._steps[conv] = math.lcm(self._steps.get(conv, 1), step)
        return tuple(Segment(segment.source, segment.width // channels * filters) for segment in read)

    def _full_width(self, source: str) -> int:
        return self.graph[self._ends[source][0] if source in self._ends else source].channels

    def _merge(self, node: Node, inputs: list[tuple[Segment, ...]]) -> tuple[Segment, ...]:
        full = {
            name: segments
            for name, segments in zip(node.inputs, inputs, strict=True)
            if self.graph[name].channels == node.channels
        }
        bypassing = self.identities.get(node.name, ())
        # A projection moves the channels of an identity to their places, whatever zeros are around them.
        if self._differ(
            node,
            [own for name, own in full.items() if name not in bypassing or before_padding(self.graph, name) is None],
        ):
            return _constant(node.channels)
        branches = [segments for name, segments in full.items() if name not in bypassing]
        for other in branches[1:]:
            self._couple(branches[0], other)
        return branches[0]

    def _differ(self, node: Node, inputs: list[tuple[Segment, ...]]) -> bool:
        """Freezes the channels of a node's inputs if their segments don't match. Returns whether it did."""
        if len({tuple(segment.width for segment in segments) for segments in inputs}) <= 1:
            meeting = set(zip(*inputs, strict=True))
            if not any(self._keep_different_shares(segments) for segments in meeting):
                return False
        for segments in inputs:
            self._freeze(segments, f"channels with different layouts meet at `{node.name}`")
        return True

    def _keep_different_shares(self, segments: tuple[Segment, ...]) -> bool:
        """Whether segments of one width come from sources of different widths."""
        return len({self._full_width(segment.source) for segment in segments if segment.source is not None}) > 1

    def _concatenate(self, node: Node, inputs: list[tuple[Segment, ...]]) -> tuple[Segment, ...]:
        axis = node.config.get("axis", -1)
        if axis in (-1, len(node.shape) - 1):
            by_name = dict(zip(node.inputs, inputs, strict=True))
            # The same tensor may be concatenated with itself.
            names = list_refs((node.args, node.kwargs))
            return tuple(segment for name in names for segment in by_name[name])
        if self._differ(node, inputs):
            return _constant(node.channels)
        for other in inputs[1:]:
            self._couple(inputs[0], other)
        return inputs[0]

    def _read(self, name: str) -> tuple[Segment, ...]:
        segments = self._raw[name]
        stage = self._stage_at.get(name)
        if stage is None or all(self._raw[end] == segments for end in self._ends[stage]):
            return segments
        if any(len(self._raw[end]) > 1 for end in self._ends[stage]):
            return (Segment(None, self.graph[name].channels),)  # frozen where the stage ends
        return (Segment(stage, segments[0].width),)

    def _end_stage(self, stage: str, couple_trunk: bool) -> None:
        ends = [self._raw[end] for end in self._ends[stage]]
        if all(segments == ends[0] for segments in ends):
            return
        if any(len(segments) > 1 or self._is_scaled(segments[0]) for segments in ends):
            for segments in ends:
                self._freeze(segments, f"blocks of {stage} end in different channel layouts")
        elif couple_trunk:
            for other in ends[1:]:
                self._couple(ends[0], other)

    def _is_scaled(self, segment: Segment) -> bool:
        return segment.source is not None and self._full_width(segment.source) != segment.width

    # The convolutions of a stage are those that its blocks end in.

    def _convs(self, segment: Segment) -> Iterable[str | None]:
        if segment.source in self._ends:
            for end in self._ends[segment.source]:
                for inner in self._raw[end]:
                    yield from self._convs(inner)
        else:
            yield segment.source

    def _couple(self, left: tuple[Segment, ...], right: tuple[Segment, ...]) -> None:
        for one, other in zip(left, right, strict=True):
            if one == other:
                continue
            names = [*self._convs(one), *self._convs(other)]
            if None in names:
                self._freeze((one, other), "it is coupled with channels that can't be dropped")
                continue
            # If several groups have a reason, keep that of the first group in graph order.
            groups = sorted({self._coupled[name] for name in names}, key=self._first_position)
            reasons = [self._reasons.pop(group) for group in groups if group in self._reasons]
            for group in groups[1:]:
                self._coupled.merge(groups[0], group)
            if reasons:
                self._reasons[self._coupled[groups[0]]] = reasons[0]

    def _first_position(self, name: str) -> int:
        return min(self.graph.position[member] for member in self._coupled.subset(name))

    def _freeze(self, segments: tuple[Segment, ...], reason: str) -> None:
        for segment in segments:
            for name in self._convs(segment):
                if name is not None:
                    self._reasons.setdefault(self._coupled[name], reason)

    def _freeze_lone_dense(self) -> None:
        searched = {self._coupled[name] for name in self._coupled if len(self.graph[name].shape) > 2}
        for name in self._coupled:
            if self._coupled[name] not in searched:
                self._reasons.setdefault(self._coupled[name], "hidden Dense layers are searched only on request")

    def _settle(self) -> None:
        members: dict[str, list[str]] = {}
        for name in self._coupled:
            members.setdefault(self._coupled[name], []).append(name)
        self.frozen = {
            name: self._reasons[self._coupled[name]] for name in self._coupled if self._coupled[name] in self._reasons
        }
        for node in self.graph:
            if node.kind is Kind.OPAQUE and node.num_params:
                self.frozen[node.name] = _why_kept(node)
        groups = [tuple(names) for group, names in members.items() if group not in self._reasons]
        self.groups = tuple(sorted(groups, key=lambda names: self.graph.position[names[0]]))
        first = {name: names[0] for names in self.groups for name in names}
        self.steps = {names[0]: math.lcm(*(self._steps.get(name, 1) for name in names)) for names in self.groups}

        def settled(segment: Segment) -> Segment:
            if segment.source in self._ends:
                ends = {tuple(map(settled, self._raw[end])) for end in self._ends[segment.source]}
                return Segment(next(iter(ends))[0].source, segment.width) if len(ends) == 1 else segment
            return Segment(first.get(segment.source), segment.width)

        self.segments = {name: tuple(map(settled, segments)) for name, segments in self._raw.items()}
        for node in self.graph:
            grouped = node.kind is Kind.DEPTHWISE and self.graph.group_sizes(node) != (1, 1)
            if grouped and all(segment.source is None for segment in self.segments[node.name]):
                self.frozen[node.name] = "it keeps whole groups of channels, and all that it reads are kept"
        self.norms = {}
        for name in first:
            norm = self._own_norm(self.graph[name])
            if norm is not None:
                self.norms[name] = norm

    def _own_norm(self, node: Node) -> str | None:
        readers = self.graph.consumers[node.name]
        alone = len(readers) == 1 and node.activation == "linear"
        is_norm = alone and self.graph[readers[0]].kind is Kind.BATCH_NORM
        return (
            readers[0]
            if is_norm and not self._is_shared(node) and not self._is_shared(self.graph[readers[0]])
            else None
        )

    def _is_shared(self, node: Node) -> bool:
        return node.shares is not None or node.name in self.graph.repeats


def differing_pairs(reads: tuple[Segment, ...], makes: tuple[Segment, ...]) -> tuple[tuple[Segment, Segment], ...]:
    """Pairs of segments of a projection's two sides. No projection is needed if the widths of all pairs are equal.

    Different layouts agree only at full width, so each segment is compared with its full width.
    """
    if [segment.width for segment in reads] == [segment.width for segment in makes]:
        return tuple(zip(reads, makes, strict=True))
    return tuple((segment, Segment(None, segment.width)) for segment in (*reads, *makes) if segment.source)


def _constant(channels: int | None) -> tuple[Segment, ...]:
    """Segments of channels that are never dropped."""
    return (Segment(None, channels),) if channels else ()


def _why_kept_with(activation: str) -> str:
    return f"its activation `{activation}` isn't known to act on each channel alone"


def _why_kept(node: Node) -> str:
    if activation_kind(node.activation) is Kind.OPAQUE:
        return _why_kept_with(node.activation)
    reason = f"layers of class {node.class_name} are kept as they are"
    counted = node.class_name in CONV_CLASSES | TRANSPOSED_CLASSES or node.class_name in _WITHOUT_MACS
    return reason if counted else f"{reason}, and their multiply-adds aren't counted"


#: Layers that have weights but neither convolve nor multiply matrices.
_WITHOUT_MACS = frozenset(
    [
        *("BatchNormalization", "GroupNormalization", "LayerNormalization", "Normalization", "RMSNormalization"),
        "PReLU",
    ]
)
