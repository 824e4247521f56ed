"""What decoding is held against: random probabilities, every shape of a small space, the most probable one there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode, smallest_shape
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

#: Standard deviations of logits, from hardly decided to almost one-hot.
SPREADS = (0.01, 1.0, 4.0)

Probabilities = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Decoding:
    """One shape decoded.

    Attributes:
        probabilities: Of widths and depths.
        limit: The budget.
        tolerance: How far below it the cost should stay at most.
        shape: What was found.
        spent: Its cost.
        seconds: Of CPU that it took.
    """

    probabilities: Probabilities
    limit: int
    tolerance: int
    shape: Shape
    spent: int
    seconds: float


def random_probabilities(space: SearchSpace, rng: np.random.Generator, spread: float) -> Probabilities:
    """Softmax of logits of that spread, in the form that `decode` takes."""

    def rows(choices):
        longest = max((len(choice.candidates) for choice in choices), default=1)
        result = np.zeros((max(1, len(choices)), longest), np.float32)
        for row, choice in enumerate(choices):
            powers = np.exp(rng.normal(0, spread, len(choice.candidates)))
            result[row, : len(choice.candidates)] = powers / powers.sum()
        return result

    return rows(space.searched_units), rows(space.searched_stages)


def decode_randomly(
    cost: CostModel, *, count: int, tolerances: Sequence[float] = (0.05,), seed: int = 0
) -> Iterator[Decoding]:
    """Decodes random logits, of each spread in turn, at budgets from the smallest reachable to the whole.

    Args:
        cost: What counts.
        count: How many.
        tolerances: Shares of the whole, one after the other.
        seed: Of logits and budgets.
    """
    lowest, rng = cost(smallest_shape(cost)), np.random.default_rng(seed)
    for number in range(count):
        probabilities = random_probabilities(cost.space, rng, SPREADS[number % len(SPREADS)])
        limit = int(rng.integers(lowest, cost.full, endpoint=True))
        tolerance = int(tolerances[number // len(SPREADS) % len(tolerances)] * cost.full)
        started = time.process_time()
        shape = decode(cost, *probabilities, limit=limit, tolerance=tolerance)
        seconds = time.process_time() - started
        yield Decoding(probabilities, limit, tolerance, shape, cost(shape), seconds)


def all_shapes(cost: CostModel) -> list[tuple[Shape, int]]:
    """Every shape of a small space with its cost, one by one."""
    space = cost.space
    widths = itertools.product(*(unit.candidates for unit in space.units))
    depths = list(itertools.product(*(stage.candidates for stage in space.stages)))
    shapes = [Shape.from_counts(space, width, depth) for width in widths for depth in depths]
    return [(shape, cost(shape)) for shape in shapes]


def log_probability(space: SearchSpace, probabilities: Probabilities, shape: Shape) -> float:
    """Of a shape; units in dropped blocks count at their most probable width, whatever the shape says."""
    widths, depths = probabilities
    total = 0.0
    for row, unit in zip(widths, space.searched_units, strict=False):
        blocks = [space.block_of.get(member) for member in unit.members]
        kept = any(block is None or shape.depths[block[0]] >= block[1] for block in blocks)
        total += np.log(row[unit.candidates.index(shape.widths[unit.name])] if kept else row.max())
    for row, stage in zip(depths, space.searched_stages, strict=False):
        total += np.log(row[stage.candidates.index(shape.depths[stage.name])])
    return float(total)


def gap_to_the_optimum(space: SearchSpace, decoding: Decoding, table: list[tuple[Shape, int]]) -> float | None:
    """How much less probable than the best shape in the window the decoded one is, in nats.

    Args:
        space: Of the shapes.
        decoding: What was found.
        table: All shapes with their costs.

    Returns:
        The gap, infinite for a shape outside the window; None where the window holds no shape.
    """
    low = decoding.limit - decoding.tolerance
    inside = [shape for shape, spent in table if low <= spent <= decoding.limit]
    if not inside:
        return None
    if not low <= decoding.spent <= decoding.limit:
        return np.inf
    best = max(log_probability(space, decoding.probabilities, shape) for shape in inside)
    return best - log_probability(space, decoding.probabilities, decoding.shape)
