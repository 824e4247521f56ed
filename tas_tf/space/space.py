"""What the search may change: width units with their coupling, stages with their depths, and what is frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import CONV_CLASSES, TRANSPOSED_CLASSES, Kind
from tas_tf.space.candidates import depth_candidates, width_candidates
from tas_tf.space.channels import ChannelFlow, Segment
from tas_tf.space.choices import Choice, ChoiceTable
from tas_tf.space.settings import AXES, SpaceSettings
from tas_tf.space.stages import find_chains

#: Stages are coupled by default if `SearchSpace.largest_projected_share` is above this. Bottleneck networks have 0.36
#: or more, all other networks measured 0.16 or less.
MOST_PROJECTED = 0.25


@dataclass(frozen=True)
class WidthUnit:
    """Convolutions that share one number of filters.

    Attributes:
        name: Name of the first convolution in graph order.
        width: Filters in the unpruned network.
        candidates: Filter counts to choose from, ascending. A unit with one candidate is fixed.
        coupled_with: Names of the other convolutions.
        step: Widths must be multiples of this number, since some layers keep whole groups of channels.
    """

    name: str
    width: int
    candidates: tuple[int, ...]
    coupled_with: tuple[str, ...] = ()
    step: int = 1

    @property
    def members(self) -> tuple[str, ...]:
        """Names of all convolutions of the unit, in graph order."""
        return (self.name, *self.coupled_with)


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks with equal output shapes. A shape keeps the first few of them.

    Attributes:
        name: `stage_1`, `stage_2`, ... in graph order.
        ends: Last node of each block.
        candidates: Block counts to choose from, ascending. A stage with one candidate is fixed.
    """

    name: str
    ends: tuple[str, ...]
    candidates: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Number of blocks in the unpruned network."""
        return len(self.ends)


@dataclass(frozen=True)
class SearchSpace:
    """Everything that a shape may change, and where in the graph.

    Attributes:
        graph: Graph of the network.
        units: Width units in graph order.
        stages: Stages in graph order.
        frozen: Layers whose channels are never dropped, with the reason.
        segments: For each node, the segments of its output in order along the channel axis.
        identities: For each residual Add, the inputs that bypass its other inputs.
        norms: For each convolution of a unit, the BatchNormalization that belongs to it, if any.
        unit_of: For each convolution of a unit, the name of the unit.

    Example:
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet14", image_size=8))
        >>> space.units[0].name, space.units[0].candidates
        ('stem', (4, 6, 8, 9, 11, 12, 14, 16))
        >>> [(stage.name, stage.candidates) for stage in space.stages]
        [('stage_1', (1, 2)), ('stage_2', (1, 2)), ('stage_3', (1, 2))]
    """

    graph: Graph
    units: tuple[WidthUnit, ...]
    stages: tuple[Stage, ...]
    frozen: Mapping[str, str]
    segments: Mapping[str, tuple[Segment, ...]]
    identities: Mapping[str, tuple[str, ...]]
    norms: Mapping[str, str]
    unit_of: Mapping[str, str]

    @classmethod
    def from_model(
        cls, model: Any, *, custom_objects: Any = None, unsafe_load: bool = False, **options: Any
    ) -> SearchSpace:
        """Derives the space of a Keras model.

        Args:
            model: Functional or Sequential `keras.Model`.
            custom_objects: See `compress`.
            unsafe_load: See `compress`.
            **options: Options of `from_graph`.

        Raises:
            UserError: If the model can't be described, an option is invalid, or nothing can be searched.
        """
        # Imported here because computing with spaces and shapes doesn't need Keras.
        from tas_tf.graph.custom import admit

        admit(custom_objects, unsafe_load=unsafe_load)
        return cls.from_graph(Graph.from_model(model), **options)

    @classmethod
    def from_graph(
        cls,
        graph: Graph,
        *,
        couple_trunk: bool | None = None,
        axes: str = SpaceSettings.axes,
        width_divisor: int = SpaceSettings.width_divisor,
        search_dense: bool = SpaceSettings.search_dense,
        units: Collection[str] | None = None,
        may_be_fixed: bool = False,
    ) -> SearchSpace:
        """Derives the space from the structure of the graph, regardless of layer names.

        Args:
            graph: Graph of the network.
            couple_trunk: Gives all block outputs of a stage one width, so that no projection is needed inside it. By
                default stages are coupled if `largest_projected_share` is above `MOST_PROJECTED`.
            axes: What may change: `width`, `depth` or `both`.
            width_divisor: Widths are rounded to multiples of this number.
            search_dense: Also searches hidden Dense layers on vectors. Without it, they are searched only if nothing
                else can be.
            units: Names of the width units of a shape for this network. If `couple_trunk` isn't given, stages are
                coupled if the shape has the units of the coupled space. If it has those that an older version of this
                package searched, what else is searched today is kept as it is.
            may_be_fixed: Allows a space in which nothing can be searched.

        Raises:
            UserError: If an argument is invalid or nothing can be searched.
        """
        if axes not in AXES:
            raise UserError(f"`axes` must be one of {', '.join(AXES)}. Received: {axes!r}.")

        def derive(graph: Graph, coupled: bool, may_be_fixed: bool = may_be_fixed) -> SearchSpace:
            return cls._derive(graph, coupled, axes, width_divisor, search_dense, may_be_fixed)

        space = derive(graph, bool(couple_trunk))
        if units is not None:
            couplings = (True, False) if couple_trunk is None else (couple_trunk,)
            graphs = (graph, *graph.with_older_kinds)
            known = (derive(read, coupled, True) for read in graphs for coupled in couplings)
            return next((found for found in known if set(found.unit) == set(units)), space)
        if couple_trunk is None and space.stages and space.largest_projected_share > MOST_PROJECTED:
            return derive(graph, True)
        return space

    @classmethod
    def _derive(
        cls,
        graph: Graph,
        couple_trunk: bool,
        axes: str,
        width_divisor: int,
        search_dense: bool,
        may_be_fixed: bool,
    ) -> SearchSpace:
        chains = find_chains(graph)
        stages = tuple(
            Stage(
                f"stage_{number}",
                chain.ends,
                depth_candidates(chain.blocks) if axes != "width" else (chain.blocks,),
            )
            for number, chain in enumerate(chains, 1)
        )
        flow = ChannelFlow(graph, {stage.name: stage.ends for stage in stages}, couple_trunk, search_dense)
        units = tuple(
            WidthUnit(
                members[0],
                graph[members[0]].channels,
                width_candidates(graph[members[0]].channels, divisor=width_divisor, step=flow.steps[members[0]])
                if axes != "depth"
                else (graph[members[0]].channels,),
                members[1:],
                flow.steps[members[0]],
            )
            for members in flow.groups
        )
        space = cls(
            graph=graph,
            units=units,
            stages=stages,
            frozen=flow.frozen,
            segments=flow.segments,
            identities=flow.identities,
            norms=flow.norms,
            unit_of={member: unit.name for unit in units for member in unit.members},
        )
        if not may_be_fixed and all(len(choice.candidates) == 1 for choice in space.choices):
            if not search_dense:
                return cls._derive(graph, couple_trunk, axes, width_divisor, True, may_be_fixed)
            reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(flow.frozen.items())[:3])
            raise UserError(f"Nothing can be searched in `{graph.network}` with axes={axes}. {reasons}".rstrip() + ".")
        return space

    @cached_property
    def unit(self) -> Mapping[str, WidthUnit]:
        """Units by name."""
        return {unit.name: unit for unit in self.units}

    @cached_property
    def stage(self) -> Mapping[str, Stage]:
        """Stages by name."""
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def stage_ending_at(self) -> Mapping[str, Stage]:
        """Stages by the last node of their last block."""
        return {stage.ends[-1]: stage for stage in self.stages}

    def full_width(self, source: str) -> int:
        """Channels that a unit, or the blocks of a stage, make in the unpruned network."""
        return self.graph[self.stage[source].ends[0]].channels if source in self.stage else self.unit[source].width

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Everything that has candidates: the width units, then the stages."""
        return (*self.units, *self.stages)

    @property
    def is_coupled(self) -> bool:
        """Whether there are stages, and all blocks of each stage have the same output width."""
        return bool(self.stages) and all(len({self.segments[end] for end in stage.ends}) == 1 for stage in self.stages)

    def read_segments(self, name: str) -> tuple[Segment, ...]:
        """Segments of a tensor as its readers see it. After a stage, the last kept block sets the width."""
        stage = self.stage_ending_at.get(name)
        own = self.segments[name]
        if stage is None or all(self.segments[end] == own for end in stage.ends):
            return own
        if len(own) > 1 or any(len(self.segments[end]) > 1 for end in stage.ends):
            return (Segment(None, self.graph[name].channels),)
        return (Segment(stage.name, own[0].width),)

    @cached_property
    def block_of(self) -> Mapping[str, tuple[str, int]]:
        """For each node that can be dropped, its stage and the number of its block, at least 2."""
        found = {}
        for stage in self.stages:
            for block in range(1, stage.blocks):
                first, last = (self.graph.position[end] for end in stage.ends[block - 1 : block + 1])
                # Between them in the order of the graph, there may be nodes on the way to another output.
                for node in self.graph.nodes[first + 1 : last + 1]:
                    if node.name in self.graph.main_path:
                        found[node.name] = (stage.name, block + 1)
        return found

    @cached_property
    def searched_units(self) -> tuple[WidthUnit, ...]:
        """Units with more than one candidate."""
        return tuple(unit for unit in self.units if len(unit.candidates) > 1)

    @cached_property
    def searched_stages(self) -> tuple[Stage, ...]:
        """Stages with more than one candidate."""
        return tuple(stage for stage in self.stages if len(stage.candidates) > 1)

    @cached_property
    def width_choices(self) -> ChoiceTable:
        """Candidates of the searched units."""
        return ChoiceTable.from_choices(self.searched_units)

    @cached_property
    def depth_choices(self) -> ChoiceTable:
        """Candidates of the searched stages."""
        return ChoiceTable.from_choices(self.searched_stages)

    def draw(self, rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws every choice uniformly from its candidates.

        Returns:
            Widths of all units `[number, units]` and depths of all stages `[number, stages]`, including fixed ones.
        """
        units, stages = (ChoiceTable.from_choices(choices) for choices in (self.units, self.stages))
        return units.draw(rng, number), stages.draw(rng, number)

    def projections(self) -> Iterator[tuple[str, str, tuple[Segment, ...], tuple[Segment, ...]]]:
        """Yields where a residual Add may need a 1x1 projection: Add, identity, and the segments of both."""
        for add, bypassing in self.identities.items():
            for identity in bypassing:
                segments = self.read_segments(identity)
                searched = any(segment.source for segment in (*segments, *self.segments[add]))
                if segments != self.segments[add] and searched:
                    yield add, identity, segments, self.segments[add]

    @property
    def largest_projected_share(self) -> float:
        """Share of the multiply-adds that all possible projections would take at full width.

        Every weight of a convolution or a Dense layer counts once for each output position.
        """
        added = sum(
            self.graph[identity].positions * _width(reads) * _width(makes)
            for _, identity, reads, makes in self.projections()
            if any(self.varies(segment) for segment in (*reads, *makes))
        )
        own = sum(
            node.num_params * node.positions
            for node in self.graph
            if node.class_name in CONV_CLASSES | TRANSPOSED_CLASSES or node.kind is Kind.DENSE
        )
        return added / (added + own) if added else 0.0

    def varies(self, segment: Segment) -> bool:
        """Whether shapes may keep different numbers of a segment's channels."""
        return any(len(self.unit[name].candidates) > 1 for name in self.units_behind(segment))

    def units_behind(self, segment: Segment) -> Iterator[str]:
        """Yields the units that a segment's channels may come from. After a stage, these are units of all blocks."""
        if segment.source is None:
            return
        if segment.source in self.stage:
            for end in self.stage[segment.source].ends:
                for inner in self.segments[end]:
                    yield from self.units_behind(inner)
        else:
            yield segment.source


def _width(segments: tuple[Segment, ...]) -> int:
    return sum(segment.width for segment in segments)
