"""The operators of a network that take time, and the quantities that their time grows with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tas_tf.cost.terms import SINGLE, Term, Tiles, kernel_area, num_operations
from tas_tf.graph.graph import Node
from tas_tf.graph.kinds import ACTIVATION_BY_NAME, CONVOLVES, Kind
from tas_tf.space.channels import Segment, differing_pairs
from tas_tf.space.space import SearchSpace

#: What the time of an operator may grow with: its mere presence, the numbers that it reads and makes, its
#: multiplications, and its weights, which have to be loaded.
QUANTITIES = ("present", "reads", "makes", "products", "weights")


@dataclass(frozen=True)
class Operator:
    """An operator of the deployed network.

    Attributes:
        kind: Operators of one kind run on one kernel, such as `conv 3x3` or `Add`.
        layer: Name of its layer.
        reads: Segments read.
        makes: Segments made.
        read_positions: Positions of its input.
        made_positions: Positions of its output.
        area: Input values that one output value reads of each channel, or of its own group; 0 if it has no kernel.
        per_channel: Whether a channel made depends on the same channel read, or its group, alone.
        differ: See `Term`.
        transposed: Whether the kernel is applied at the positions of the input.
    """

    kind: str
    layer: str
    reads: tuple[Segment, ...]
    makes: tuple[Segment, ...]
    read_positions: int
    made_positions: int
    area: int = 0
    per_channel: bool = True
    differ: tuple[tuple[Segment, Segment], ...] = ()
    transposed: bool = False

    def term(self, quantity: str, read_tiles: Tiles = SINGLE, make_tiles: Tiles = SINGLE, *, scale: float = 1) -> Term:
        """One of its `QUANTITIES`, times `scale`, as a term of a cost.

        Args:
            quantity: The quantity.
            read_tiles: How the kernel counts the channels that it reads.
            make_tiles: How it counts the channels that it makes.
            scale: Cost of one unit of the quantity.
        """
        factor, reads, makes, tiles = 1, (), (), {}
        if quantity == "reads":
            factor, reads = self.read_positions, self.reads
        elif quantity == "makes":
            factor, makes = self.made_positions, self.makes
        elif quantity in ("products", "weights"):
            applied = self.read_positions if self.transposed else self.made_positions
            factor = self.area * (applied if quantity == "products" else 1)
            reads, makes = () if self.per_channel else self.reads, self.makes
            tiles = (
                {"make_tiles": make_tiles}
                if self.per_channel
                else {"read_tiles": read_tiles} | {"make_tiles": make_tiles}
            )
        return Term(self.layer, round(factor * scale), reads, makes, self.differ, **tiles)

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities that its time may grow with."""
        return QUANTITIES if self.area else QUANTITIES[:3]


def operators(space: SearchSpace) -> tuple[Operator, ...]:
    """Lists the operators whose time depends on the shape; what is frozen takes the same time in all shapes."""
    return tuple(_operators(space))


def _operators(space: SearchSpace) -> Iterator[Operator]:
    graph = space.graph
    for node in graph:
        if node.kind is Kind.OPAQUE or not node.inputs or not num_operations(graph, node):
            continue
        reads, makes = space.read_segments(node.inputs[0]), space.segments[node.name]
        positions = (graph[node.inputs[0]].positions, node.positions)
        if node.kind in CONVOLVES:
            yield from _kernels(space, node, reads, makes, *positions)
        else:
            yield Operator(_name_of(node), node.name, reads, makes, *positions)
        activation = ACTIVATION_BY_NAME.get(node.activation)
        if node.class_name != "Activation" and activation is not None and activation.num_operations:
            yield Operator(f"activation {node.activation}", node.name, makes, makes, node.positions, node.positions)
    for add, identity, reads, makes in space.projections():
        positions = graph[identity].positions
        kind = "conv 1x1" if len(graph[identity].shape) > 2 else "dense"
        yield Operator(kind, add, reads, makes, positions, positions, 1, False, differing_pairs(reads, makes))


def _kernels(
    space: SearchSpace,
    node: Node,
    reads: tuple[Segment, ...],
    makes: tuple[Segment, ...],
    read: int,
    made: int,
) -> Iterator[Operator]:
    area = kernel_area(node)
    if node.kind is Kind.DENSE:
        yield Operator("dense" if read == 1 else "conv 1x1", node.name, reads, makes, read, made, 1, False)
        return
    size = node.config["kernel_size"]
    size = "x".join(map(str, size if isinstance(size, tuple | list) else (size,)))
    strided = " strided" if made < read else ""
    if node.kind is Kind.CONV:
        yield Operator(f"conv {size}{strided}", node.name, reads, makes, read, made, area, False)
        return
    if node.kind is Kind.TRANSPOSED:
        yield Operator(f"transposed {size}", node.name, reads, makes, read, made, area, False, transposed=True)
        return
    if node.kind is Kind.SEPARABLE:
        multiplier = node.config["depth_multiplier"]
        yield Operator(f"depthwise {size}{strided}", node.name, reads, reads * multiplier, read, made, area)
        yield Operator("conv 1x1", node.name, reads * multiplier, makes, made, made, 1, False)
        return
    channels, _ = space.graph.group_sizes(node)
    kind = "depthwise" if channels == 1 else "grouped"
    yield Operator(f"{kind} {size}{strided}", node.name, reads, makes, read, made, area * channels)


def _name_of(node: Node) -> str:
    return f"activation {node.activation}" if node.class_name == "Activation" else node.class_name
