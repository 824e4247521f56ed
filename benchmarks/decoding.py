"""References for decoding: random probabilities, all shapes of a small space, the most probable of them."""

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

#: Standard deviations of logits: the distributions range from almost uniform to almost one-hot.
SPREADS = (0.01, 1.0, 4.0)

Probabilities = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Decoding:
    """Result of one decoding.

    Attributes:
        probabilities: Probabilities of widths and depths.
        limit: The budget.
        tolerance: Largest wanted distance of the cost below the budget.
        shape: The decoded shape.
        spent: Cost of the shape.
        seconds: CPU seconds of the decoding.
    """

    probabilities: Probabilities
    limit: int
    tolerance: int
    shape: Shape
    spent: int
    seconds: float


def random_probabilities(space: SearchSpace, rng: np.random.Generator, spread: float) -> Probabilities:
    """Returns the softmax of random logits, in the form that `decode` takes.

    Args:
        space: Search space of the choices.
        rng: Random numbers.
        spread: Standard deviation of the logits.
    """

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
    """Decodes random logits, with each spread in turn, at budgets from the smallest reachable to the full cost.

    Args:
        cost: Cost model of the search space.
        count: Number of decodings.
        tolerances: Tolerances to use in turn, as shares of the full cost.
        seed: Random seed of logits and budgets.
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
    """Returns every shape of a small space with its cost."""
    space = cost.space
    widths = itertools.product(*(unit.candidates for unit in space.units))
    depths = list(itertools.product(*(stage.candidates for stage in space.stages)))
    shapes = [Shape.from_counts(space, width, depth) for width in widths for depth in depths]
    return [(shape, cost(shape)) for shape in shapes]


def log_probability(space: SearchSpace, probabilities: Probabilities, shape: Shape) -> float:
    """Returns the log-probability of a shape; units in dropped blocks count with their most probable width."""
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
    """Returns how much less probable the decoded shape is than the best shape in the window, in nats.

    The window holds all costs from the tolerance below the budget to the budget.

    Args:
        space: Search space of the shapes.
        decoding: The decoding to rate.
        table: All shapes with their costs.

    Returns:
        The gap; infinite for a shape outside the window, None if the window holds no shape.
    """
    low = decoding.limit - decoding.tolerance
    inside = [shape for shape, spent in table if low <= spent <= decoding.limit]
    if not inside:
        return None
    if not low <= decoding.spent <= decoding.limit:
        return np.inf
    best = max(log_probability(space, decoding.probabilities, shape) for shape in inside)
    return best - log_probability(space, decoding.probabilities, decoding.shape)
