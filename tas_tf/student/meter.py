"""Costs that no formula gives exactly: measures shapes, and finds a smaller one if the first costs too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tas_tf import workers
from tas_tf.cost.cost_model import MEASURED, MILLISECOND, CostModel, amount, reported
from tas_tf.decode.decode import check_reachable, smallest_shape
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

_OF_ALL = "every width and depth at its smallest"
# Room for a larger shape, as a share of the budget, from which one is tried.
_ROOM = 0.03


class Meter(Protocol):
    """Measures what a shape really costs.

    Attributes:
        kind: Kind of the cost, see `tas_tf.cost.cost_model.COST_KINDS`.
        measures: Whether costs are measured; if not, they are predictions, such as those for another device.
    """

    kind: str

    @property
    def measures(self) -> bool:
        """Whether costs are measured."""

    def cost_model(self) -> CostModel:
        """The cost model, calibrated by measurements."""

    def figures(self) -> dict[str, Any]:
        """What was measured, for reports."""

    def __call__(self, shape: Shape) -> int:
        """Measures the cost of a shape, in the cost model's unit."""


class OnChief:
    """A meter that measures on the chief alone, see `tas_tf.workers.once`.

    Args:
        meter: The meter.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter, self.kind, self.measures = meter, meter.kind, meter.measures

    def cost_model(self) -> CostModel:
        """The cost model, calibrated by measurements on the chief."""
        return workers.once(self._meter.cost_model)

    def figures(self) -> dict[str, Any]:
        """What was measured, for reports."""
        return workers.once(self._meter.figures)

    def __call__(self, shape: Shape) -> int:
        """Measures the cost of a shape, in the cost model's unit."""
        return workers.once(lambda: self._meter(shape))


def make_cost(space: SearchSpace, kind: str, meter: Meter | None = None) -> CostModel:
    """Makes a cost model; for bytes and latency, it comes from the meter.

    Raises:
        UserError: If the kind needs a meter and none of that kind is given.
    """
    if kind not in MEASURED:
        return CostModel(space, kind)
    if meter is None or meter.kind != kind:
        raise UserError(f"`budget` of the kind {kind} needs a `meter` that measures it. Received: {meter!r}.")
    return meter.cost_model()


def real_cost(cost: CostModel, shape: Shape, meter: Meter | None) -> int:
    """Cost of a shape: measured if `meter` measures this kind of cost, otherwise by the cost model."""
    return meter(shape) if meter is not None and meter.kind == cost.kind else cost(shape)


def budget_figures(cost: CostModel, limit: int, spent: int) -> dict[str, Any]:
    """The metrics that tell what a shape costs and may cost; latencies are in milliseconds.

    Args:
        cost: Cost model.
        limit: Budget.
        spent: Real cost of the shape.
    """
    kind = cost.kind
    return {
        "budget_kind": kind,
        f"budget_{kind}": reported(kind, limit),
        f"shape_{kind}": reported(kind, spent),
        f"shape_{kind}_ratio": spent / cost.full,
    }


def find_within(
    find: Callable[[int], Shape],
    cost: CostModel,
    limit: int,
    meter: Meter | None,
    *,
    cheapest: Callable[[], Shape] | None = None,
    cheapest_is: str = _OF_ALL,
) -> tuple[Shape, int]:
    """Finds a shape whose real cost is at most `limit`.

    If a shape costs more than the budget, the limit given to `find` is lowered by what the prediction was short of, at
    least so far that another shape is found. If a shape leaves room for a larger one, by the error of its own
    prediction, the larger one is tried too: neither predictions nor a single measurement that are too high cost much.

    Args:
        find: Returns a shape that costs at most the given limit by the cost model; raises `UserError` if none does.
        cost: Cost model.
        limit: Budget.
        meter: Measures shapes. Not needed if the cost model is exact.
        cheapest: Makes the cheapest shape that `find` may return, the last one to be tried; by default the cheapest
            of all.
        cheapest_is: What that shape is, for messages.

    Returns:
        The shape and its real cost, as given by `real_cost`.

    Raises:
        UserError: If there is no such shape.
    """
    if meter is None or meter.kind != cost.kind:
        shape = find(limit)
        return shape, cost(shape)
    allowed, below = limit, None
    while True:
        try:
            shape = find(allowed)
        except UserError as error:
            shape = smallest_shape(cost) if cheapest is None else cheapest()
            if (real := meter(shape)) > limit:
                raise _too_small(cost, limit, real, meter, cheapest_is) from error
            break
        if (real := meter(shape)) <= limit:
            break
        below = cost(shape) - 1
        allowed = min(below, limit - (real - cost(shape)))
    higher = limit - (real - cost(shape))
    higher = higher if below is None else min(below, higher)
    if higher - allowed > _ROOM * limit:
        try:
            larger = find(higher)
        except UserError:  # the shape is the cheapest of its kind, and predictions for it are too high
            return shape, real
        spent = meter(larger)
        if real < spent <= limit:
            return larger, spent
    return shape, real


def check_smallest(cost: CostModel, limit: int, meter: Meter | None) -> None:
    """Checks that the real cost of the cheapest shape is at most `limit`.

    Raises:
        UserError: If it costs more.
    """
    if meter is None or meter.kind != cost.kind:
        check_reachable(cost, limit)
    lowest = real_cost(cost, smallest_shape(cost), meter)
    if lowest > limit:
        raise _too_small(cost, limit, lowest, meter)


def _smallest_budget(cost: CostModel, lowest: int) -> str:
    """The smallest budget as a user would write it."""
    if cost.kind != "latency":
        return f"{cost.kind}:{lowest}"
    return f"latency:{np.ceil(lowest / (MILLISECOND // 10**6)) / 1000:.3f}us"


def _too_small(cost: CostModel, limit: int, lowest: int, meter: Meter | None, what: str = _OF_ALL) -> UserError:
    how = "measured" if meter is None or meter.measures else "predicted"
    who = "the network" if what == _OF_ALL else "a shape of this kind"
    return UserError(
        f"`budget` is below what {who} can reach. Expected at least {_smallest_budget(cost, lowest)} "
        f"({amount(cost.kind, lowest)}: {what}, {how}). Received: {amount(cost.kind, limit)}."
    )
