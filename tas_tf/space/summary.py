"""What a shape keeps of each unit and stage, for reports and pictures."""

from __future__ import annotations

from typing import Any

from tas_tf.space.shape import Shape, dropped_nodes
from tas_tf.space.space import SearchSpace


def summarise_shape(space: SearchSpace, shape: Shape) -> dict[str, list[dict[str, Any]]]:
    """Compares a shape with the unpruned network.

    Args:
        space: The search space.
        shape: Widths and depths.

    Returns:
        `{"units": [{"name", "width", "kept", "dropped"}], "stages": [{"name", "blocks", "kept"}]}` in network order;
        `width` and `blocks` are the unpruned network's, and `dropped` is true in blocks that are left out.

    Example:
        >>> from dataclasses import replace
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet14", image_size=8))
        >>> full = tas_tf.Shape.full(space)
        >>> shape = replace(full, depths={**full.depths, "stage_3": 1})
        >>> summary = summarise_shape(space, shape)
        >>> summary["stages"][-1]
        {'name': 'stage_3', 'blocks': 2, 'kept': 1}
        >>> sum(unit["dropped"] for unit in summary["units"])
        2
    """
    nodes, _ = dropped_nodes(space, shape)
    return {
        "units": [
            {
                "name": unit.name,
                "width": unit.width,
                "kept": shape.widths[unit.name],
                "dropped": nodes.issuperset(unit.members),
            }
            for unit in space.units
        ],
        "stages": [
            {"name": stage.name, "blocks": stage.blocks, "kept": shape.depths[stage.name]} for stage in space.stages
        ],
    }
