"""Budgets in bytes: a predicted size is measured, and a shape whose file is too large is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
    """Sizes of TFLite files, measured on students with random weights; each shape once.

    Attributes:
        space: The unpruned network.
        measure: Bytes of the file that a network becomes, such as `tas_tf.deploy.tflite.file_size`.
    """

    space: SearchSpace
    measure: Callable[[keras.Model], int]
    _known: dict[tuple, int] = field(default_factory=dict, repr=False)

    def __call__(self, shape: Shape) -> int:
        """Bytes of the file of a shape."""
        key = (*shape.widths.values(), *shape.depths.values())
        if key not in self._known:
            student, rng = build_student(self.space, shape), np.random.default_rng(0)
            # Weights that repeat, such as biases of 0, are stored once: trained ones don't.
            for weight in student.weights:
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            self._known[key] = self.measure(student)
        return self._known[key]


def make_cost(space: SearchSpace, kind: str, file_size: FileSize | None = None) -> CostModel:
    """The cost model of a kind, that of bytes calibrated on the unpruned network's file.

    Raises:
        UserError: Bytes are asked for and `file_size` isn't given.
    """
    if kind != "bytes":
        return CostModel(space, kind)
    if file_size is None:
        raise UserError("`budget` in bytes needs `file_size`, which measures files. Received: none.")
    return CostModel(space, kind, file_bytes=file_size(Shape.full(space)))


def real_cost(cost: CostModel, shape: Shape, file_size: FileSize | None) -> int:
    """What a shape costs: of bytes what its file has, where that can be measured."""
    return file_size(shape) if cost.kind == "bytes" and file_size is not None else cost(shape)


def find_within(
    find: Callable[[int], Shape], cost: CostModel, limit: int, file_size: FileSize | None
) -> tuple[Shape, int]:
    """Finds a shape that really costs at most `limit`.

    A file that is too large lowers what is asked for by as much, hence each round asks for less, and there is an end.

    Args:
        find: Gives a shape that costs at most so much by the cost model; raises `UserError` where there is none.
        cost: What counts.
        limit: The budget.
        file_size: Measures files; not needed where the cost model is exact.

    Returns:
        The shape, and what it costs: of bytes what was measured.

    Raises:
        UserError: There is no such shape.
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
    """Makes sure that the cheapest shape really costs at most `limit`.

    Raises:
        UserError: It doesn't.
    """
    check_reachable(cost, limit)
    lowest = real_cost(cost, smallest_shape(cost), file_size)
    if lowest > limit:
        raise _too_small(cost, limit, lowest)


def _too_small(cost: CostModel, limit: int, lowest: int) -> UserError:
    return UserError(
        f"`budget` is below what {cost.space.graph.network} can reach. Expected at least {cost.kind}:{lowest} (every "
        f"width and depth at its smallest, measured). Received: {limit:,} {cost.kind}."
    )
