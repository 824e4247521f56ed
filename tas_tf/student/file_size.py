"""Budgets in bytes: measures the file of a shape and finds a smaller shape if the file is too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import check_reachable, smallest_shape
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student


@dataclass(frozen=True)
class FileSize:
    """Measures TFLite file sizes of students with random weights, and remembers them by shape.

    Attributes:
        space: Search space of the unpruned network.
        measure: Returns the size of a network's file in bytes, such as `tas_tf.deploy.tflite.file_size`.
    """

    space: SearchSpace
    measure: Callable[[keras.Model], int]
    _known: dict[tuple, int] = field(default_factory=dict, repr=False)

    def __call__(self, shape: Shape) -> int:
        """Measures the file size of a shape in bytes."""
        key = (*shape.widths.values(), *shape.depths.values())
        if key not in self._known:
            student, rng = build_student(self.space, shape), np.random.default_rng(0)
            # Equal weights, such as biases of 0, are stored only once. Trained weights aren't equal.
            for weight in student.weights:
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            self._known[key] = self.measure(student)
        return self._known[key]


def make_cost(space: SearchSpace, kind: str, file_size: FileSize | None = None) -> CostModel:
    """Makes a cost model. For bytes, it is calibrated on the unpruned network's file.

    Raises:
        UserError: If `kind` is `bytes` and `file_size` isn't given.
    """
    if kind != "bytes":
        return CostModel(space, kind)
    if file_size is None:
        raise UserError("`budget` in bytes needs `file_size`, which measures files. Received: none.")
    return CostModel(space, kind, file_bytes=file_size(Shape.full(space)))


def real_cost(cost: CostModel, shape: Shape, file_size: FileSize | None) -> int:
    """Cost of a shape. Bytes are measured if `file_size` is given, otherwise predicted."""
    return file_size(shape) if cost.kind == "bytes" and file_size is not None else cost(shape)


def budget_figures(cost: CostModel, limit: int, spent: int) -> dict[str, Any]:
    """The metrics that tell what a shape costs and may cost.

    Args:
        cost: Cost model.
        limit: Budget.
        spent: Real cost of the shape.
    """
    kind = cost.kind
    return {
        "budget_kind": kind,
        f"budget_{kind}": limit,
        f"shape_{kind}": spent,
        f"shape_{kind}_ratio": spent / cost.full,
    }


def find_within(
    find: Callable[[int], Shape], cost: CostModel, limit: int, file_size: FileSize | None
) -> tuple[Shape, int]:
    """Finds a shape whose real cost is at most `limit`.

    If a file is too large, the limit given to `find` is lowered by the excess. The limit falls in every round, so the
    search ends.

    Args:
        find: Returns a shape that costs at most the given limit by the cost model; raises `UserError` if none does.
        cost: Cost model.
        limit: Budget.
        file_size: Measures files. Not needed if the cost model is exact.

    Returns:
        The shape and its real cost, as given by `real_cost`.

    Raises:
        UserError: If there is no such shape.
    """
    shape = find(limit)
    allowed = limit
    while (real := real_cost(cost, shape, file_size)) > limit:
        allowed -= real - limit
        try:
            shape = find(allowed)
        except UserError as error:
            shape = smallest_shape(cost)
            if real_cost(cost, shape, file_size) > limit:
                raise _too_small(cost, limit, real_cost(cost, shape, file_size)) from error
    return shape, real


def check_smallest(cost: CostModel, limit: int, file_size: FileSize | None) -> None:
    """Checks that the real cost of the cheapest shape is at most `limit`.

    Raises:
        UserError: If it costs more.
    """
    check_reachable(cost, limit)
    lowest = real_cost(cost, smallest_shape(cost), file_size)
    if lowest > limit:
        raise _too_small(cost, limit, lowest)


def _too_small(cost: CostModel, limit: int, lowest: int) -> UserError:
    return UserError(
        f"`budget` is below what the network can reach. Expected at least {cost.kind}:{lowest} (every "
        f"width and depth at its smallest, measured). Received: {limit:,} {cost.kind}."
    )
