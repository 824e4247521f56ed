"""Adapts operations that count channels, such as splits, to the channels that a shape keeps."""

from __future__ import annotations

from dataclasses import replace

from tas_tf.graph.kinds import Kind
from tas_tf.graph.nodes import Node
from tas_tf.graph.operations import selected_channels, split_points
from tas_tf.space.shape import ActiveChannels
from tas_tf.space.space import SearchSpace


def narrowed_selection(node: Node, space: SearchSpace, active: ActiveChannels) -> Node:
    """Moves the places at which a node takes channels to where a shape's channels are; returns other nodes unchanged.

    Args:
        node: Node of the unpruned network.
        space: Search space of the network.
        active: Channels that the shape keeps.
    """
    if node.kind is not Kind.SELECT:
        return node
    # Segments come from the original input, which a shape may replace by the end of an earlier block.
    original = space.graph[node.name].inputs[0]
    channels = space.graph[original].channels
    if len(active.read(original)) == channels:
        return node

    def moved(point: int) -> int:
        kept = place = 0
        for segment in space.read_segments(original):
            inside = min(segment.width, max(0, point - place))
            # Segments that are cut keep all their channels.
            kept += active.width(segment) if inside == segment.width else inside
            place += segment.width
        return kept

    if node.class_name == "GetItem":
        start, stop = map(moved, selected_channels(space.graph[node.name], channels))
        return replace(node, args=(node.args[0], (Ellipsis, slice(start, stop))), kwargs={})
    points = [moved(point) for point in split_points(node, channels)[1:-1]]
    return replace(node, config={**node.config, "indices_or_sections": points})
