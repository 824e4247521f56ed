"""Shapes for comparison, found without a search at the same cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import check_reachable, decode
from tas_tf.errors import UserError
from tas_tf.proposals.uniform import cheapest_uniform_shape, uniform_shape
from tas_tf.space.shape import Shape
from tas_tf.student.meter import Meter, find_within

#: Kinds that have the shape of `uniform` and keep the channels which rank highest by a criterion of the same name.
RANKED_KINDS = ("l1", "fpgm")
BASELINE_KINDS = ("uniform", "random", *RANKED_KINDS)
#: A seed of NumPy.
Seed = int | Sequence[int]
_BATCH = 512
_MAX_BATCHES = 40


def baseline_shape(
    kind: str, cost: CostModel, *, limit: int, tolerance: int, divisor: int = 1, seed: Seed = 0
) -> Shape:
    """Returns a shape of one of `BASELINE_KINDS` that costs at most `limit`.

    Args:
        kind: `uniform` keeps all blocks and the same share of filters in every unit, as large as the budget allows.
            `random` draws every choice evenly, among shapes that cost at least `limit - tolerance`. `l1` and `fpgm`
            have the shape of `uniform` and differ only in which channels they keep, see `tas_tf.importance`.
        cost: Cost model.
        limit: Budget.
        tolerance: How far below the budget a random shape may cost.
        divisor: Uniform widths are rounded down to multiples of this; random widths are candidates of the space.
        seed: Seed of random shapes.

    Raises:
        UserError: The kind is unknown, or no shape of that kind is within the budget.
    """
    if kind not in BASELINE_KINDS:
        raise UserError(f"`kind` must be one of {', '.join(BASELINE_KINDS)}. Received: {kind!r}.")
    check_reachable(cost, limit)
    if kind == "random":
        return _random(cost, limit, tolerance, seed)
    return uniform_shape(cost, limit=limit, divisor=divisor)


def affordable_baseline(
    kind: str,
    cost: CostModel,
    *,
    limit: int,
    tolerance: int,
    meter: Meter | None,
    divisor: int = 1,
    seed: Seed = 0,
) -> tuple[Shape, int]:
    """Returns a shape of one of `BASELINE_KINDS` whose real cost is at most `limit`, and that cost.

    Args:
        kind: See `baseline_shape`.
        cost: Cost model.
        limit: Budget.
        tolerance: See `baseline_shape`.
        meter: Measures shapes; needed for budgets in bytes or time.
        divisor: See `baseline_shape`.
        seed: Seed of random shapes.

    Raises:
        UserError: The kind is unknown, or no shape of that kind is within the budget.
    """

    def find(allowed: int) -> Shape:
        return baseline_shape(kind, cost, limit=allowed, tolerance=tolerance, divisor=divisor, seed=seed)

    if kind == "random":
        return find_within(find, cost, limit, meter)
    return find_within(
        *(find, cost, limit, meter),
        cheapest=lambda: cheapest_uniform_shape(cost, divisor=divisor),
        cheapest_is="uniform widths at their smallest, with all blocks",
    )


def _random(cost: CostModel, limit: int, tolerance: int, seed: Seed) -> Shape:
    space, rng = cost.space, np.random.default_rng(seed)
    for _ in range(_MAX_BATCHES):
        widths, depths = space.draw(rng, _BATCH)
        costs = cost.exact(widths, depths)
        (fitting,) = np.nonzero((costs <= limit) & (costs >= limit - tolerance))
        if len(fitting):
            return Shape.from_counts(space, widths[fitting[0]], depths[fitting[0]])
    # Even draws hardly ever reach this cost, so decode the most probable shape under random probabilities.
    widths, depths = (choices.draw_probabilities(rng) for choices in (space.width_choices, space.depth_choices))
    return decode(cost, widths, depths, limit=limit, tolerance=tolerance)
