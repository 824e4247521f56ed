"""How every single change of a width changes the exact cost at given depths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.terms import count_tiled
from tas_tf.space.channels import Segment


class WidthCosts:
    """The cost of one network as a function of its widths, at fixed depths.

    Changing one width affects only the few terms that read or make its channels, so only these are recomputed. Numbers
    are float64, exact up to 2^53.

    Args:
        cost: Cost model.
        depths: Depths of all stages, in the space's order.
        moves: Changes to evaluate, as pairs of the unit's index in the space and its new width, sorted by unit.
    """

    def __init__(self, cost: CostModel, depths: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        self._cost = cost
        self._num_units = len(cost.space.units)
        self._depth_of = {stage.name: depth for stage, depth in zip(cost.space.stages, depths, strict=True)}
        self._constants: list[int] = []
        present = np.ones(len(cost.terms))
        if len(depths):
            present *= np.asarray(depths)[cost.block_stage] >= cost.block_number
        self._factors = cost.factors * present
        self._reads, self._makes = self._resolved(cost.reads), self._resolved(cost.makes)
        self._find_pairs()
        self._expand(moves)

    def __call__(self, widths: np.ndarray) -> tuple[float, np.ndarray]:
        """Computes the cost, and by how much each move changes it.

        Args:
            widths: Widths of all units, `[units]`.
        """
        sizes = np.concatenate([widths, self._constants]).astype(np.float64)
        ones = np.append(sizes[: self._num_units], 1.0)
        reads, makes = np.rint(ones @ self._reads), np.rint(ones @ self._makes)  # before tiles
        apart = np.zeros(len(self._factors), np.int64)
        np.add.at(apart, self._terms_of_pairs, _differ(sizes[self._lefts], sizes[self._rights], self._scales))
        now = self._factors * self._tiled(reads, makes, slice(None)) * ((apart > 0) | ~self._optional)

        steps = (self._new - sizes[self._units])[self._move]
        terms = self._term
        left, right = sizes[self._pair_left], sizes[self._pair_right]
        moved_to, scales = self._new[self._pair_move], self._scales[self._pair]
        was = _differ(left, right, scales)
        left, right = np.where(self._moves_left, moved_to, left), np.where(self._moves_right, moved_to, right)
        becomes = _differ(left, right, scales)
        shift = np.bincount(self._pair_entry, becomes.astype(np.float64) - was, len(terms))
        there = (apart[terms] + shift > 0) | ~self._optional[terms]
        new_reads = np.rint(reads[terms] + self._read_step * steps)
        new_makes = np.rint(makes[terms] + self._make_step * steps)
        then = self._factors[terms] * self._tiled(new_reads, new_makes, terms) * there
        changes = np.bincount(self._move, then - now[terms], len(self._new))
        return float(now.sum()), changes

    def _tiled(self, reads: np.ndarray, makes: np.ndarray, terms: np.ndarray | slice) -> np.ndarray:
        """Channels read times channels made of some terms, both in whole tiles."""
        cost = self._cost
        return count_tiled(reads, *cost.read_tiles[:, terms]) * count_tiled(makes, *cost.make_tiles[:, terms])

    def _resolved(self, forms: np.ndarray) -> np.ndarray:
        """Rewrites linear forms of all sources as forms of the units' widths and a constant, `[units + 1, terms]`."""
        result = np.zeros((self._num_units + 1, forms.shape[1]))
        result[: self._num_units] = forms[: self._num_units]
        result[-1] = forms[-1]
        for stage in self._cost.space.stages:
            segments = [self._cost.space.segments[end] for end in stage.ends]
            if all(len(own) == 1 for own in segments):  # otherwise no segment has this stage as its source
                unit, width = self._source(Segment(stage.name, segments[0][0].width))
                form = forms[self._cost.sources[stage.name]]
                result[-1 if unit is None else unit] += form * width if unit is None else form
        return result

    def _source(self, segment: Segment) -> tuple[int | None, int]:
        """Index of the unit that sets a segment's width at these depths, or None, and the segment's full width."""
        space = self._cost.space
        while segment.source in space.stage:
            stage = space.stage[segment.source]
            segment = space.segments[stage.ends[self._depth_of[stage.name] - 1]][0]
        return (None if segment.source is None else self._cost.sources[segment.source]), segment.width

    def _place(self, segment: Segment) -> int:
        """Index of a segment's size in the array of units' widths followed by constants."""
        unit, width = self._source(segment)
        if unit is not None:
            return unit
        self._constants.append(width)
        return self._num_units + len(self._constants) - 1

    def _scale(self, segment: Segment) -> float:
        return 1.0 if segment.source is None else self._cost.scale(segment)

    def _find_pairs(self) -> None:
        """Collects the pairs of sizes that must differ for a projection to exist."""
        sides = [
            (place, left, right)
            for place, term in enumerate(self._cost.terms)
            if self._factors[place]
            for left, right in term.differ
        ]
        pairs = [(place, self._place(left), self._place(right)) for place, left, right in sides]
        self._terms_of_pairs, self._lefts, self._rights = np.array(pairs, np.int64).reshape(-1, 3).T
        scales = [[self._scale(left), self._scale(right)] for _, left, right in sides]
        self._scales = np.array(scales, np.float64).reshape(-1, 2)  # channels of each side for each of its source
        self._optional = np.array([bool(term.differ) for term in self._cost.terms])

    def _expand(self, moves: Sequence[tuple[int, int]]) -> None:
        """Lists the terms and pairs that each move affects. The lists are the same for all widths."""
        self._units, self._new = np.array(moves, np.int64).reshape(-1, 2).T
        touched = ((self._reads != 0) | (self._makes != 0))[: self._num_units] & (self._factors != 0)
        in_pair = np.zeros((self._num_units, len(self._lefts)), bool)
        for side in (self._lefts, self._rights):
            (real,) = np.nonzero(side < self._num_units)
            in_pair[side[real], real] = True
            touched[side[real], self._terms_of_pairs[real]] = True
        self._move, self._term = np.nonzero(touched[self._units])
        unit = self._units[self._move]
        self._read_step, self._make_step = self._reads[unit, self._term], self._makes[unit, self._term]
        self._pair_move, self._pair = np.nonzero(in_pair[self._units])
        pair = self._pair
        entry = np.full((len(self._new), len(self._factors)), -1)
        entry[self._move, self._term] = np.arange(len(self._move))
        self._pair_entry = entry[self._pair_move, self._terms_of_pairs[pair]]
        self._pair_left, self._pair_right = self._lefts[pair], self._rights[pair]
        mover = self._units[self._pair_move]
        self._moves_left, self._moves_right = self._pair_left == mover, self._pair_right == mover


def _differ(lefts: np.ndarray, rights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Whether two sides have different numbers of channels, given the sizes of their sources, `[pairs]`."""
    return np.rint(lefts * scales[:, 0]) != np.rint(rights * scales[:, 1])
