"""The cost that no shape can reduce, layer by layer."""

from __future__ import annotations

from tas_tf.cost.terms import at_full_width, mac_terms
from tas_tf.space.space import SearchSpace


def frozen_macs(space: SearchSpace) -> dict[str, int]:
    """Counts the multiply-adds that all shapes have, by layer in graph order.

    A layer counts if neither the channels that it reads nor those that it makes can change, and it is in no block that
    can be dropped.
    """
    droppable = {name for name, (stage, _) in space.block_of.items() if len(space.stage[stage].candidates) > 1}
    found: dict[str, int] = {}
    for term in mac_terms(space):
        varies = any(map(space.varies, (*term.reads, *term.makes)))
        if not (term.differ or varies or term.layer in droppable):
            found[term.layer] = found.get(term.layer, 0) + at_full_width(term)
    return found
