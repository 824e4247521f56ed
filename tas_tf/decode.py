"""Turns probabilities into the most probable shape within a budget.

A heuristic with a guarantee: every shape is judged by its exact cost, so the budget is kept whatever the search finds.
Cost isn't monotone - narrowing one unit may make projections necessary - hence every move is evaluated anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tas_tf.cost import CostModel
from tas_tf.errors import UserError
from tas_tf.shape import Shape

_EXHAUSTIVE = 20_000  # spaces up to this many shapes are tried out whole
_STARTS = 12  # depths from which the local search starts
_PAIRS = 48  # moves on each side of the pairs tried


@dataclass(frozen=True)
class Window:
    """Costs that are accepted.

    Attributes:
        low: Where possible, at least this.
        high: Never more than this.
    """

    low: int
    high: int


def decode(
    cost: CostModel, width_probabilities: np.ndarray, depth_probabilities: np.ndarray, *, limit: int, tolerance: int = 0
) -> Shape:
    """Finds the most probable shape that costs at most `limit`, and at least `limit - tolerance` where one does.

    Widths of dropped blocks count at their most probable, else shallow shapes would always win.

    Args:
        cost: What counts.
        width_probabilities: `[units, candidates]` in the order of the space's searched units.
        depth_probabilities: `[stages, candidates]` in the order of its searched stages.
        limit: The budget.
        tolerance: How far below it the cost should stay at most.

    Raises:
        UserError: No shape is that cheap; says what the cheapest costs.
    """
    smallest = smallest_shape(cost)
    check_reachable(cost, limit, smallest)
    choices = _Choices(cost, np.asarray(width_probabilities), np.asarray(depth_probabilities))
    window = Window(limit - tolerance, limit)
    if choices.num_shapes <= _EXHAUSTIVE:
        return choices.shape(_best(choices, choices.all(), window))
    ends = [_into_window(choices, start, window) for start in _starts(choices, smallest)]
    ends = [_polish(choices, end, window) for end in _most_promising(choices, ends, window)]
    return choices.shape(_best(choices, np.stack(ends), window))


def smallest_shape(cost: CostModel) -> Shape:
    """The cheapest shape found: every choice at its smallest, and from there whatever is cheaper still."""
    space = cost.space
    units, stages = len(space.searched_units), len(space.searched_stages)
    longest = max((len(unit.candidates) for unit in space.searched_units), default=1)
    deepest = max((len(stage.candidates) for stage in space.searched_stages), default=1)
    choices = _Choices(cost, np.ones((max(1, units), longest)), np.ones((max(1, stages), deepest)))
    state = np.zeros(choices.size, np.int64)
    while True:
        moves = choices.moves(state)
        costs = choices.costs(moves)
        if not len(moves) or costs.min() >= choices.costs(state[None])[0]:
            return choices.shape(state)
        state = moves[costs.argmin()]


def check_reachable(cost: CostModel, limit: int, smallest: Shape | None = None) -> None:
    """Makes sure that some shape costs at most `limit`.

    Raises:
        UserError: None does; says what the cheapest costs.
    """
    lowest = cost.of(smallest or smallest_shape(cost))
    if lowest > limit:
        share = np.ceil(1000 * lowest / cost.full) / 1000
        raise UserError(
            f"`budget` is below what {cost.space.graph.network} can reach. Expected at least {cost.kind}:{share:.3f} "
            f"({lowest:,} {cost.kind}: every width and depth at its smallest). Received: {limit:,} {cost.kind}."
        )


class _Choices:
    """States of all choices as rows of candidate indices: searched units, then searched stages."""

    def __init__(self, cost: CostModel, widths: np.ndarray, depths: np.ndarray) -> None:
        self.cost, self.space = cost, cost.space
        units, stages = self.space.searched_units, self.space.searched_stages
        self.counts = np.array([len(choice.candidates) for choice in (*units, *stages)], np.int64)
        self.size = len(self.counts)
        self.num_units = len(units)
        rows = [*widths[: len(units)], *depths[: len(stages)]]
        self.losses = np.full((self.size, max(self.counts)), np.inf)
        for row, (probabilities, count) in enumerate(zip(rows, self.counts, strict=True)):
            logs = np.log(np.maximum(probabilities[:count].astype(np.float64), 1e-300))
            self.losses[row, :count] = logs.max() - logs
        self.argmax = np.array([int(row[:count].argmin()) for row, count in zip(self.losses, self.counts, strict=True)])

    @property
    def num_shapes(self) -> int:
        """How many states there are."""
        return int(np.prod(self.counts.astype(object)))

    def all(self) -> np.ndarray:
        """Every state, `[shapes, choices]`."""
        grids = np.meshgrid(*(np.arange(count) for count in self.counts), indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1)

    @cached_property
    def _moves(self) -> tuple[np.ndarray, np.ndarray]:
        choice = np.repeat(np.arange(self.size), self.counts)
        return choice, np.concatenate([np.arange(count) for count in self.counts])

    def moves(self, state: np.ndarray) -> np.ndarray:
        """States that differ from one in one choice, `[moves, choices]`."""
        choice, candidate = self._moves
        differs = state[choice] != candidate
        states = np.repeat(state[None], int(differs.sum()), axis=0)
        states[np.arange(len(states)), choice[differs]] = candidate[differs]
        return states

    @cached_property
    def _tables(self) -> tuple[list, list]:
        units, stages = self.space.searched_units, self.space.searched_stages
        return [np.array(unit.candidates) for unit in units], [np.array(stage.candidates) for stage in stages]

    def counts_of(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Widths `[shapes, units]` and depths `[shapes, stages]` of all units and stages, fixed ones included."""
        tables = [*self._tables[0], *self._tables[1]]
        place = {
            choice.name: row for row, choice in enumerate((*self.space.searched_units, *self.space.searched_stages))
        }

        def column(choice) -> np.ndarray:
            row = place.get(choice.name)
            if row is None:
                return np.full(len(states), choice.candidates[0], np.int64)
            return tables[row][states[:, row]]

        widths = [column(unit) for unit in self.space.units]
        depths = [column(stage) for stage in self.space.stages]
        empty = np.zeros((len(states), 0), np.int64)
        return (
            np.stack(widths, axis=1) if widths else empty,
            np.stack(depths, axis=1) if depths else empty,
        )

    def costs(self, states: np.ndarray) -> np.ndarray:
        """Exact costs, `[shapes]`."""
        return self.cost.exact(*self.counts_of(states))

    @cached_property
    def _blocks(self) -> list[list[tuple[int, int]]]:
        """For each searched unit the blocks it is in, as (stage, number); none where it is always there."""
        place = {stage.name: row for row, stage in enumerate(self.space.stages)}
        blocks = []
        for unit in self.space.searched_units:
            where = [self.space.block_of.get(member) for member in unit.members]
            blocks.append([] if None in where else [(place[stage], number) for stage, number in where])
        return blocks

    def losses_of(self, states: np.ndarray) -> np.ndarray:
        """How much less probable than the most probable shape, in nats, `[shapes]`."""
        each = self.losses[np.arange(self.size), states]
        depths = self.counts_of(states)[1]
        for unit, blocks in enumerate(self._blocks):
            if blocks:
                there = np.any([depths[:, stage] >= number for stage, number in blocks], axis=0)
                each[:, unit] *= there
        return each.sum(1)

    def shape(self, state: np.ndarray) -> Shape:
        """The shape of a state; dropped blocks' units at their most probable width."""
        state = state.copy()
        depths = self.counts_of(state[None])[1][0]
        for unit, blocks in enumerate(self._blocks):
            if blocks and not any(depths[stage] >= number for stage, number in blocks):
                state[unit] = self.argmax[unit]
        widths, depths = self.counts_of(state[None])
        return Shape.of(self.space, widths[0], depths[0])


def _best(choices: _Choices, states: np.ndarray, window: Window) -> np.ndarray:
    """The most probable of the affordable states, those in the window first."""
    costs, losses = choices.costs(states), choices.losses_of(states)
    below = np.maximum(window.low - costs, 0)
    order = np.lexsort((losses, below))
    affordable = order[costs[order] <= window.high]
    return states[affordable[0]]


def _starts(choices: _Choices, smallest: Shape) -> list[np.ndarray]:
    """The most probable shape, alike with the next probable depths, and the cheapest shape."""
    depth_rows = np.arange(choices.num_units, choices.size)
    frontier, seen, starts = [choices.argmax], {tuple(choices.argmax)}, []
    while frontier and len(starts) < _STARTS:
        frontier.sort(key=lambda state: choices.losses[depth_rows, state[depth_rows]].sum())
        state = frontier.pop(0)
        starts.append(state)
        for row in depth_rows:
            for candidate in range(choices.counts[row]):
                other = state.copy()
                other[row] = candidate
                if tuple(other) not in seen:
                    seen.add(tuple(other))
                    frontier.append(other)
    units, stages = choices.space.searched_units, choices.space.searched_stages
    cheapest = [unit.candidates.index(smallest.widths[unit.name]) for unit in units]
    cheapest += [stage.candidates.index(smallest.depths[stage.name]) for stage in stages]
    return [*starts, np.array(cheapest, np.int64)]


def _into_window(choices: _Choices, state: np.ndarray, window: Window) -> np.ndarray:
    """Trades probability for cost, best exchange first: down until affordable, then up into the window."""
    while (cost := choices.costs(state[None])[0]) > window.high:
        moves = choices.moves(state)
        saved = cost - choices.costs(moves)
        lost = choices.losses_of(moves) - choices.losses_of(state[None])[0]
        cheaper = np.flatnonzero(saved > 0)
        if not len(cheaper):
            break  # a dead end; other starts go on
        # Savings beyond what is needed are worth nothing.
        worth = np.minimum(saved[cheaper], cost - window.high)
        state = _apply(
            choices, state, moves, cheaper[np.argsort(lost[cheaper] / worth, kind="stable")], saved, cost, window
        )
    while (cost := choices.costs(state[None])[0]) < window.low:
        moves = choices.moves(state)
        spent = choices.costs(moves) - cost
        lost = choices.losses_of(moves) - choices.losses_of(state[None])[0]
        possible = np.flatnonzero((spent > 0) & (cost + spent <= window.high))
        if not len(possible):
            break
        worth = np.minimum(spent[possible], window.low - cost)
        state = moves[possible[np.argmin(lost[possible] / worth)]]
    return state


def _apply(choices, state, moves, order, saved, cost, window) -> np.ndarray:
    """Takes the best move, and further ones of other choices while together they save less than half of what is due."""
    result, due = moves[order[0]].copy(), (cost - window.high) / 2
    changed = set(np.flatnonzero(result != state))
    taken = saved[order[0]]
    for move in order[1:]:
        (row,) = np.flatnonzero(moves[move] != state)
        if taken + saved[move] > due:
            break
        if row not in changed:
            changed.add(row)
            result[row] = moves[move][row]
            taken += saved[move]
    return result


def _most_promising(choices: _Choices, ends: list[np.ndarray], window: Window) -> list[np.ndarray]:
    """The few distinct ends worth polishing; an affordable one is among them."""
    distinct = np.unique(np.stack(ends), axis=0)
    costs = choices.costs(distinct)
    affordable = distinct[costs <= window.high]
    below = np.maximum(window.low - choices.costs(affordable), 0)
    order = np.lexsort((choices.losses_of(affordable), below))
    return list(affordable[order[:4]])


def _polish(choices: _Choices, state: np.ndarray, window: Window) -> np.ndarray:
    """Moves one choice, or two at once, as long as the shape gets more probable or comes nearer to the window."""

    def rank(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        costs = choices.costs(states)
        below = np.maximum(window.low - costs, 0).astype(np.float64)
        return np.where(costs > window.high, np.inf, below), choices.losses_of(states)

    def better(states: np.ndarray) -> np.ndarray | None:
        below, losses = rank(np.concatenate([state[None], states]))
        best = np.lexsort((losses, below))[0]
        improves = below[best] < below[0] or (below[best] == below[0] and losses[best] < losses[0] - 1e-9)
        return states[best - 1] if best and improves else None

    for _ in range(choices.size * 4):
        moves = choices.moves(state)
        found = better(moves)
        if found is None:
            found = better(_pairs(choices, state, moves))
        if found is None:
            return state
        state = found
    return state


def _pairs(choices: _Choices, state: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Pairs of moves: those that gain most probability, each with those that give back the most cost for the least."""
    saved = choices.costs(state[None])[0] - choices.costs(moves)
    lost = choices.losses_of(moves) - choices.losses_of(state[None])[0]
    gains = np.argsort(lost, kind="stable")[:_PAIRS]
    savers = np.flatnonzero(saved > 0)
    savers = savers[np.argsort(np.maximum(lost[savers], 1e-9) / saved[savers], kind="stable")[:_PAIRS]]
    changed = (moves != state).argmax(1)
    pairs = [state[None]]
    for gain in gains:
        others = savers[changed[savers] != changed[gain]]
        both = np.repeat(moves[gain][None], len(others), axis=0)
        both[np.arange(len(others)), changed[others]] = moves[others, changed[others]]
        pairs.append(both)
    return np.concatenate(pairs)
