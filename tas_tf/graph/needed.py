"""Leaves out nodes that no output depends on, and puts the others in topological order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tas_tf.graph.nodes import Node


def only_needed(nodes: list[Node], outputs: Sequence[str]) -> tuple[Node, ...]:
    """Returns the nodes that some output depends on, in topological order."""
    needed = set(outputs)
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
            needed.update([node.sibling] if node.sibling else [])
    return tuple(_topological(_with_owners([node for node in nodes if node.name in needed], nodes)))


def _with_owners(kept: list[Node], nodes: list[Node]) -> list[Node]:
    """Gives the weights of a layer to its first call that is kept, if its very first one isn't."""
    names = {node.name for node in kept}
    num_params = {node.name: node.num_params for node in nodes}
    owners: dict[str, str] = {}
    found = []
    for node in kept:
        if node.shares and node.shares not in names and not node.sibling:
            owner = owners.setdefault(node.shares, node.name)
            new = {"shares": owner} if owner != node.name else {"shares": None, "num_params": num_params[node.shares]}
            node = replace(node, **new)
        found.append(node)
    return found


def _topological(nodes: list[Node]) -> list[Node]:
    # A functional config lists layers by depth. This order is topological except around nested models.
    done: set[str] = set()
    ordered: list[Node] = []
    waiting = list(nodes)
    while waiting:
        ready = next(node for node in waiting if all(name in done for name in node.inputs))
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered
