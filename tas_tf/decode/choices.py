"""Shapes as rows of candidate indices, with their costs and probabilities."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.width_costs import WidthCosts
from tas_tf.space.choices import ChoiceTable
from tas_tf.space.shape import Shape


@dataclass(frozen=True)
class Moves:
    """Moves from one state, each of which changes one choice.

    Attributes:
        choice: Index of the changed choice, `[moves]`.
        candidate: Index of its new candidate, `[moves]`.
        cost: Exact cost of the state before the move.
        spent: Exact increase in cost, `[moves]`.
        lost: Decrease in log-probability, in nats, `[moves]`.
    """

    choice: np.ndarray
    candidate: np.ndarray
    cost: float
    spent: np.ndarray
    lost: np.ndarray

    def apply(self, state: np.ndarray, *moves: int) -> np.ndarray:
        """Applies moves of different choices to `state` and returns the new state."""
        result, places = state.copy(), list(moves)
        result[self.choice[places]] = self.candidate[places]
        return result


@dataclass(frozen=True)
class _AtDepths:
    """Values that all states with the same depths share."""

    widths: WidthCosts
    there: np.ndarray  # whether the width of each searched unit matters


class Choices:
    """Computes costs and probabilities of states. A state holds the candidate index of each searched unit and stage.

    Units whose blocks are all dropped count with their most probable width; otherwise shallow shapes would always win.

    Args:
        cost: Cost model.
        width_probabilities: `[units, candidates]` in the order of the space's searched units.
        depth_probabilities: `[stages, candidates]` in the order of the space's searched stages.
    """

    def __init__(self, cost: CostModel, width_probabilities: np.ndarray, depth_probabilities: np.ndarray) -> None:
        self.cost, self.space = cost, cost.space
        widths, depths = self.space.width_choices, self.space.depth_choices
        self._searched = ChoiceTable(widths.names + depths.names, widths.candidates + depths.candidates)
        self.num_units, self.size, self.counts = len(widths), len(self._searched), self._searched.counts
        rows = [*widths.unpack(width_probabilities), *depths.unpack(depth_probabilities)]
        logs = [np.log(np.maximum(np.asarray(row, np.float64), 1e-300)) for row in rows]
        self._losses = self._searched.pack([row.max() - row for row in logs], fill=np.inf, dtype=np.float64)
        self.argmax = self._losses.argmin(1)
        self._at_depths: dict[bytes, _AtDepths] = {}

    @property
    def num_shapes(self) -> int:
        """Number of states."""
        return int(np.prod(self.counts.astype(object)))

    def all(self) -> np.ndarray:
        """Every state, `[shapes, choices]`."""
        grids = np.meshgrid(*(np.arange(count) for count in self.counts), indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1)

    def state(self, shape: Shape) -> np.ndarray:
        """The state of a shape whose widths and depths are all candidates."""
        kept, table = {**shape.widths, **shape.depths}, self._searched
        state = [row.index(kept[name]) for name, row in zip(table.names, table.candidates, strict=True)]
        return np.array(state, np.int64)

    def shape(self, state: np.ndarray) -> Shape:
        """The shape of a state, with the most probable width for units whose blocks are all dropped."""
        (widths,), (depths,) = self._counts_of(self._settled(state)[None])
        return Shape.from_counts(self.space, widths, depths)

    def costs(self, states: np.ndarray) -> np.ndarray:
        """Exact costs, `[shapes]`."""
        return self.cost.exact(*self._counts_of(states))

    def losses(self, states: np.ndarray) -> np.ndarray:
        """Differences in log-probability from the most probable shape, in nats, `[shapes]`."""
        each = self._losses[np.arange(self.size), states]
        each[:, : self.num_units] *= self._there(self._counts_of(states)[1])
        return each.sum(1)

    def depth_losses(self, states: np.ndarray) -> np.ndarray:
        """Like `losses`, but for the depths only."""
        depths = np.arange(self.num_units, self.size)
        return self._losses[depths, states[:, self.num_units :]].sum(1)

    def moves(self, state: np.ndarray, *, kept: Collection[int] = ()) -> Moves:
        """Lists all moves from a state, except those of the `kept` choices."""
        here = self._fixed(state)
        choice, candidate = self._width_moves
        cost, spent = here.widths(self._counts_of(state[None])[0][0])
        lost = (self._losses[choice, candidate] - self._losses[choice, state[choice]]) * here.there[choice]
        wanted = candidate != state[choice]
        if kept:
            wanted &= ~np.isin(choice, list(kept))
        widths = Moves(choice[wanted], candidate[wanted], cost, spent[wanted], lost[wanted])
        others = [(row, index) for row, index in self._depth_moves if index != state[row] and row not in kept]
        if not others:
            return widths
        rows, indices = np.array(others).T
        states = np.repeat(state[None], len(others), axis=0)
        states[np.arange(len(others)), rows] = indices
        return Moves(
            np.concatenate([widths.choice, rows]),
            np.concatenate([widths.candidate, indices]),
            cost,
            np.concatenate([widths.spent, self.costs(states) - cost]),
            np.concatenate([widths.lost, self.losses(states) - self.losses(state[None])]),
        )

    @cached_property
    def _depth_moves(self) -> list[tuple[int, int]]:
        return [(row, index) for row in range(self.num_units, self.size) for index in range(self.counts[row])]

    @cached_property
    def _width_moves(self) -> tuple[np.ndarray, np.ndarray]:
        counts = self.counts[: self.num_units]
        return np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(0), *map(np.arange, counts)])

    def _fixed(self, state: np.ndarray) -> _AtDepths:
        key = state[self.num_units :].tobytes()
        if key not in self._at_depths:
            depths = self._counts_of(state[None])[1]
            place = {unit.name: row for row, unit in enumerate(self.space.units)}
            units = self.space.searched_units
            rows, candidates = self._width_moves
            moves = [
                (place[units[row].name], units[row].candidates[candidate])
                for row, candidate in zip(rows, candidates, strict=True)
            ]
            self._at_depths[key] = _AtDepths(WidthCosts(self.cost, depths[0], moves), self._there(depths)[0])
        return self._at_depths[key]

    def _settled(self, state: np.ndarray) -> np.ndarray:
        there = self._there(self._counts_of(state[None])[1])[0]
        settled = state.copy()
        settled[: self.num_units] = np.where(there, state[: self.num_units], self.argmax[: self.num_units])
        return settled

    def _counts_of(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Widths `[shapes, units]` and depths `[shapes, stages]` of all units and stages, including fixed ones."""
        fixed = np.broadcast_to(self._fixed_counts, (len(states), len(self._fixed_counts)))
        chosen = self._searched.table[np.arange(self.size), states]
        counts = np.concatenate([chosen, fixed], axis=1)[:, self._columns]
        return counts[:, : len(self.space.units)], counts[:, len(self.space.units) :]

    @cached_property
    def _columns(self) -> np.ndarray:
        """Column of each unit and stage in an array of the searched choices followed by the fixed ones."""
        place = self._searched.row
        columns, fixed = [], self.size
        for choice in self.space.choices:
            columns.append(place.get(choice.name, fixed))
            fixed += choice.name not in place
        return np.array(columns, np.int64)

    @cached_property
    def _fixed_counts(self) -> np.ndarray:
        choices = self.space.choices
        return np.array([choice.candidates[0] for choice in choices if len(choice.candidates) == 1], np.int64)

    @cached_property
    def _blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit index, stage index and block number of each convolution in units that can be dropped as a whole."""
        stage_place = {stage.name: row for row, stage in enumerate(self.space.stages)}
        found = []
        for row, unit in enumerate(self.space.searched_units):
            where = [self.space.block_of[member] for member in unit.members if member in self.space.block_of]
            if len(where) == len(unit.members):
                found += [(row, stage_place[stage], number) for stage, number in where]
        units, stages, numbers = np.array(found, np.int64).reshape(-1, 3).T
        return units, stages, numbers

    def _there(self, depths: np.ndarray) -> np.ndarray:
        """Whether the width of each searched unit matters because a convolution of it is kept, `[shapes, units]`."""
        unit, stage, number = self._blocks
        there = np.ones((len(depths), self.num_units), bool)
        there[:, unit] = False
        kept = depths[:, stage] >= number
        shape, entry = np.nonzero(kept)
        there[shape, unit[entry]] = True
        return there
