"""Finds residual identities and stages, which are runs of blocks that may be dropped."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.graph.graph import Graph, Node, conv_signature
from tas_tf.graph.kinds import CONVOLVES, Kind


@dataclass(frozen=True)
class Chain:
    """Consecutive blocks with equal output shapes, given by their last nodes."""

    ends: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.ends)


def find_identities(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Finds the identities of each residual Add: the inputs that bypass its other inputs.

    An input is an identity if its source is an ancestor of another input's source. Only Adds that every path passes
    through are residual: an Add inside a cell merely sums several branches.
    """
    found = {}
    for node in graph:
        if node.kind is not Kind.ADD or node.name not in graph.cut_tensors:
            continue
        # A one-channel input that is broadcast to all channels neither bypasses nor is bypassed.
        full = [name for name in node.inputs if graph[name].channels == node.channels]
        sources = {name: _source(graph, name) for name in full}
        bypassing = tuple(
            name
            for name, source in sources.items()
            if any(graph.is_ancestor(source, of=other) for other in sources.values())
        )
        if bypassing:
            found[node.name] = bypassing
    return found


def before_padding(graph: Graph, name: str) -> str | None:
    """Name of the tensor whose channels were filled up with zeros to make this one; None if there is none."""
    node = graph[graph.trace(name)[0]]
    if node.kind is Kind.PAD:
        return node.inputs[0]
    others = [one for one in node.inputs if graph[one].class_name != "ZerosLike"]
    return others[0] if node.kind is Kind.CONCAT and len(others) == 1 < len(node.inputs) else None


def _source(graph: Graph, name: str) -> str:
    filled = before_padding(graph, name)
    return graph.trace(name)[0] if filled is None else _source(graph, filled)


def find_chains(graph: Graph) -> tuple[Chain, ...]:
    """Finds the stages with two or more blocks, in graph order."""
    links = _find_links(graph)
    by_previous_add = {link.source: link for link in links}
    followers = {link.add for link in links if link.source in {other.add for other in links}}
    chains = []
    for link in links:
        if link.add in followers:
            continue
        chain = [link]
        while chain[-1].add in by_previous_add:
            chain.append(by_previous_add[chain[-1].add])
        ends = _block_ends(graph, chain)
        if len(ends) >= 2 and _keeps_its_layers(graph, ends):
            chains.append(Chain(ends))
    return tuple(chains)


def _keeps_its_layers(graph: Graph, ends: tuple[str, ...]) -> bool:
    """Whether no block that may be dropped holds the weights of layers that are called again outside the stage."""
    between = graph.nodes[graph.position[ends[0]] + 1 : graph.position[ends[-1]] + 1]
    droppable = {node.name for node in between if node.name in graph.main_path}
    return not any(first in droppable and not droppable.issuperset(repeats) for first, repeats in graph.repeats.items())


@dataclass(frozen=True)
class _Link:
    """A residual Add and its identity, the end of the previous block."""

    add: str
    start: str  # the cut tensor that the identity comes from
    source: str  # the node that made the identity: the Add of the previous block, or a convolution
    walked: tuple[Node, ...]  # operations between source and start, last first


def _find_links(graph: Graph) -> list[_Link]:
    links = []
    for add, identities in find_identities(graph).items():
        shape = graph[add].shape

        def keeps_shape(node: Node, shape=shape) -> bool:
            return node.shape == shape

        for identity in identities:
            start = identity
            while start not in graph.cut_tensors and _is_parameter_free(graph[start], shape):
                start = graph[start].inputs[0]
            if start not in graph.cut_tensors or graph[start].shape != shape:
                continue
            source, walked = graph.trace(start, keeps_shape)
            if graph[source].shape == shape:
                links.append(_Link(add, start, source, walked))
                break
    return links


def _is_parameter_free(node: Node, shape: tuple) -> bool:
    kinds = (Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS, Kind.POOL)
    return node.kind in kinds and node.num_params == 0 and len(node.inputs) == 1 and node.shape == shape


def _block_ends(graph: Graph, chain: list[_Link]) -> tuple[str, ...]:
    first = chain[0]
    ends = [link.start for link in chain]
    if graph[first.source].kind is not Kind.ADD and not _is_like_a_block(graph, first):
        ends = ends[1:]
    last = _follow(graph, chain[-1].add, _operations_after_adds(graph, chain))
    return (*ends, last) if last else tuple(ends)


def _is_like_a_block(graph: Graph, first: _Link) -> bool:
    """Whether the layers before the first identity end in the same convolutions as the first residual branch."""

    def signatures(low: int, high: int) -> list:
        nodes = [node for node in graph.nodes[low : high + 1] if node.name in graph.main_path]
        return [conv_signature(node) for node in nodes if node.kind in CONVOLVES]

    start = graph.position[first.start]
    branch = signatures(start + 1, graph.position[first.add])
    before = signatures(0, start)
    return bool(branch) and before[-len(branch) :] == branch


def _operations_after_adds(graph: Graph, chain: list[_Link]) -> tuple[Node, ...]:
    for link in chain:
        if graph[link.source].kind is Kind.ADD:
            return tuple(reversed(link.walked))
    return ()


def _follow(graph: Graph, name: str, operations: tuple[Node, ...]) -> str | None:
    """Walks forward through operations that match `operations`. Returns None if no block can end there."""
    for wanted in operations:
        readers = graph.consumers[name]
        if len(readers) != 1:
            return None
        reader = graph[readers[0]]
        if (reader.class_name, reader.activation) != (wanted.class_name, wanted.activation):
            return None
        name = reader.name
    return name if name in graph.cut_tensors and name != graph.output else None
