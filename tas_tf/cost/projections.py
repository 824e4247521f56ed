"""The 1x1 convolutions (projections) that pruned shapes need, and their share of the cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.space.channels import differing_pairs
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace

_SHAPES = 100


def projections(space: SearchSpace, shape: Shape) -> list[dict[str, Any]]:
    """Lists the 1x1 convolutions that a shape needs: `{layer, in, out, macs}`."""
    active = ActiveChannels(space, shape)
    found = []
    for add, identity, reads, makes in space.projections():
        stage, block = space.block_of.get(add, ("", 1))
        kept = not stage or shape.depths[stage] >= block
        if kept and any(active.width(one) != active.width(other) for one, other in differing_pairs(reads, makes)):
            width_in, width_out = (sum(map(active.width, side)) for side in (reads, makes))
            macs = space.graph[identity].positions * width_in * width_out
            found.append({"layer": add, "in": width_in, "out": width_out, "macs": macs})
    return found


def projected_share(space: SearchSpace) -> float:
    """Mean share of the multiply-adds that projections take in random shapes."""
    widths, depths = space.draw(np.random.default_rng(0), _SHAPES)
    cost = CostModel(space)
    return float((cost.projected(widths, depths) / cost.exact(widths, depths)).mean())
