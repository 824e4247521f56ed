"""Whether the blocks of a stage end in widths of their own, which costs projections, or all in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

#: Share of the multiply-adds that projections may take in random shapes before trunks are coupled by default.
#: Measured: basic blocks and inverted bottlenecks stay below, bottlenecks are at a quarter and more.
MOST_PROJECTED = 0.1
_SHAPES = 100


def make_space(
    graph: Graph, *, couple_trunk: bool | None = None, shape: Shape | None = None, **options: Any
) -> SearchSpace:
    """Derives the space of a network.

    Args:
        graph: The network.
        couple_trunk: Gives all block outputs of a stage one width; by default where projections would otherwise take
            more than `MOST_PROJECTED` of a random shape's multiply-adds.
        shape: One to be used in the space; where `couple_trunk` isn't given, its units say how it was found.
        **options: Further ones of `SearchSpace.from_graph`.

    Raises:
        UserError: An option is off, or nothing can be searched.
    """
    free = SearchSpace.from_graph(graph, couple_trunk=bool(couple_trunk), **options)
    if couple_trunk is not None or not free.stages:
        return free
    coupled = SearchSpace.from_graph(graph, couple_trunk=True, **options)
    if shape is not None:
        return coupled if set(shape.widths) == set(coupled.unit) else free
    return coupled if projected_share(free) > MOST_PROJECTED else free


def projected_share(space: SearchSpace) -> float:
    """Share of the multiply-adds that projections take, on average over random shapes."""
    rng = np.random.default_rng(0)
    widths = np.stack([rng.choice(unit.candidates, _SHAPES) for unit in space.units], axis=1)
    depths = [rng.choice(stage.candidates, _SHAPES) for stage in space.stages]
    depths = np.stack(depths, axis=1) if depths else np.zeros((_SHAPES, 0), np.int64)
    cost = CostModel(space)
    return float((cost.projected(widths, depths) / cost.exact(widths, depths)).mean())
