"""Shapes whose layers all keep the same share of their filters, at any depth, or tilted to early or late layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


def uniform_shape(
    cost: CostModel,
    *,
    limit: int,
    depths: Sequence[int] | None = None,
    tilt: float = 0.0,
    divisor: int = 1,
    fill: bool = False,
) -> Shape:
    """Finds the widest shape within a budget in which every unit keeps the same share of its filters.

    Widths are whole numbers, so that a large part of the budget may be left. `fill` spends it.

    Args:
        cost: Cost model.
        limit: Budget.
        depths: Blocks that each stage keeps; by default all.
        tilt: Multiplies the share of layers at the highest resolution by `exp(-tilt)` and of those at the lowest by
            `exp(tilt)`, with resolutions between them in even steps.
        divisor: Widths are rounded down to multiples of this number.
        fill: Gives units, early ones first, the width of the next larger share as long as the budget allows it.

    Raises:
        UserError: No such shape is cheap enough.

    Example:
        >>> from tas_tf.cost.cost_model import CostModel
        >>> from tas_tf.space.space import SearchSpace
        >>> from tas_tf.zoo.loading import load_network
        >>> cost = CostModel(SearchSpace.from_model(load_network("resnet14", image_size=8)))
        >>> shape = uniform_shape(cost, limit=cost.full // 4, depths=(1, 1, 2))
        >>> shape.widths["stem"], shape.widths["stage3_block2_conv2"], dict(shape.depths)
        (9, 39, {'stage_1': 1, 'stage_2': 1, 'stage_3': 2})
    """
    space = cost.space
    kept = _depths(space, depths)
    widths = _even_widths(space, tilt, divisor)
    (fitting,) = np.nonzero(_costs(cost, widths, kept) <= limit)
    if not len(fitting):
        raise UserError(
            "`budget` can't be reached with uniform widths, even with one filter a layer. "
            f"Received: {amount(cost.kind, limit)}."
        )
    best = fitting[0]
    chosen = widths[best]
    if fill and best > 0:
        chosen = _filled(cost, chosen, widths[best - 1], kept, limit)
    return Shape.from_counts(space, chosen, kept)


def cheapest_uniform_shape(
    cost: CostModel, *, depths: Sequence[int] | None = None, tilt: float = 0.0, divisor: int = 1
) -> Shape:
    """Returns the cheapest of the shapes that `uniform_shape` chooses from.

    Args:
        cost: Cost model.
        depths: Blocks that each stage keeps; by default all.
        tilt: See `uniform_shape`.
        divisor: See `uniform_shape`.
    """
    kept = _depths(cost.space, depths)
    widths = _even_widths(cost.space, tilt, divisor)
    return Shape.from_counts(cost.space, widths[_costs(cost, widths, kept).argmin()], kept)


def _depths(space: SearchSpace, depths: Sequence[int] | None) -> np.ndarray:
    return np.array([stage.blocks for stage in space.stages] if depths is None else depths, np.int64)


def _even_widths(space: SearchSpace, tilt: float, divisor: int) -> np.ndarray:
    """Widths of all units for each share at which one of them changes, largest share first, `[shares, units]`."""
    full = np.array([unit.width for unit in space.units])
    searched = np.array([len(unit.candidates) > 1 for unit in space.units], bool)
    shares = np.exp(tilt * _places(space))
    steps = {
        count / (width * share) for width, share in set(zip(full, shares, strict=True)) for count in range(1, width + 1)
    }
    factors = np.array(sorted(steps, reverse=True))
    divisors = np.array([math.lcm(divisor, unit.step) for unit in space.units], np.int64)
    wanted = np.floor(full * np.minimum(1, factors[:, None] * shares) + 1e-9).astype(np.int64) // divisors * divisors
    return np.where(searched, np.clip(wanted, np.minimum(divisors, full), full), full)


def _costs(cost: CostModel, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
    return cost.exact(widths, np.tile(depths, (len(widths), 1)))


def _filled(cost: CostModel, widths: np.ndarray, wider: np.ndarray, depths: np.ndarray, limit: int) -> np.ndarray:
    for unit in np.nonzero(wider > widths)[0]:
        raised = widths.copy()
        raised[unit] = wider[unit]
        if cost.exact(raised[None], depths[None])[0] <= limit:
            widths = raised
    return widths


def depth_choices(space: SearchSpace, most: int) -> list[tuple[int, ...]]:
    """Lists depths of all stages to try, deepest first: all combinations if there are at most `most`, else a selection.

    A selection shortens all stages by the same share, or early stages more than late ones, or the other way round.

    Args:
        space: Search space.
        most: Largest number of combinations.
    """
    candidates = [stage.candidates for stage in space.stages]
    if math.prod(map(len, candidates)) <= most:
        return sorted(itertools.product(*candidates), key=lambda depths: (-sum(depths), depths))
    places = np.linspace(-1, 1, len(candidates))
    leaning: dict[tuple[int, ...], bool] = {}
    for share in np.linspace(1, 0, max(2, most)):
        for lean in (0.0, 1.0, -1.0):
            kept = np.clip(share + lean * places * min(share, 1 - share), 0, 1)
            depths = tuple(row[round(part * (len(row) - 1))] for part, row in zip(kept, candidates, strict=True))
            leaning.setdefault(depths, lean != 0)
    # Those that shorten all stages alike come first, and of each kind the deepest.
    chosen = sorted(leaning, key=lambda depths: (leaning[depths], -sum(depths)))[:most]
    return sorted(chosen, key=lambda depths: (-sum(depths), depths))


def _places(space: SearchSpace) -> np.ndarray:
    """Place of each unit by resolution, from -1 for the highest to 1 for the lowest, in even steps, `[units]`."""
    positions = np.array([space.graph[unit.name].positions for unit in space.units])
    levels = np.unique(-positions, return_inverse=True)[1]
    return np.interp(levels, [0, max(1, levels.max(initial=0))], [-1, 1])
