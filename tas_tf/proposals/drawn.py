"""Shapes from the probabilities that a differentiable search found."""

from __future__ import annotations

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.proposals.shortlist import Proposal
from tas_tf.space.choices import ChoiceTable
from tas_tf.space.shape import Shape
from tas_tf.student.meter import Meter, find_within

# Draws in a row that bring nothing new before there are no more.
_MISSES = 20


def drawn_proposals(
    cost: CostModel,
    best: Shape,
    probabilities: tuple[np.ndarray, np.ndarray],
    *,
    limit: int,
    count: int,
    meter: Meter | None = None,
    seed: int = 0,
) -> list[Proposal]:
    """Lists the shape that a search kept, and further shapes drawn from its probabilities.

    A draw adds Gumbel noise to all log-probabilities and decodes the most probable shape, so that candidates come up as
    often as they are probable, as far as the budget allows it.

    Args:
        cost: Cost model.
        best: The shape that the search kept.
        probabilities: Probabilities of widths and depths, as `decode` takes them.
        limit: Budget.
        count: Largest number of shapes.
        meter: Measures shapes; needed for budgets in bytes or time.
        seed: Seed of the draws.
    """
    rng, space = np.random.default_rng(seed), cost.space

    def noisy(rows: np.ndarray, choices: ChoiceTable) -> np.ndarray:
        drawn = [np.maximum(row, 1e-30) * np.exp(rng.gumbel(size=len(row))) for row in choices.unpack(rows)]
        return choices.pack([row / row.sum() for row in drawn], dtype=np.float64)

    shapes, misses = [best], 0
    while len(shapes) < count and misses < _MISSES:
        widths, depths = (
            noisy(rows, choices)
            for rows, choices in zip(probabilities, (space.width_choices, space.depth_choices), strict=True)
        )

        def find(allowed: int, widths: np.ndarray = widths, depths: np.ndarray = depths) -> Shape:
            return decode(cost, widths, depths, limit=allowed, tolerance=allowed // 50)

        shape, _ = find_within(find, cost, limit, meter)
        misses = misses + 1 if shape in shapes else 0
        shapes += [] if shape in shapes else [shape]
    return [Proposal("search" if number == 1 else f"search {number}", shape) for number, shape in enumerate(shapes, 1)]
