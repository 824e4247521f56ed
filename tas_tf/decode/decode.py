"""Turns probabilities into the most probable shape within a budget.

The search is heuristic but always keeps the budget, because every shape is judged by its exact cost. The cost isn't
monotone, since narrowing one unit may make projections necessary, so it is recomputed after every step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.decode.choices import Choices, Moves
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape

_EXHAUSTIVE = 20_000  # spaces with up to this many shapes are searched exhaustively
_STARTS = 12  # combinations of depths that the local search starts from
_POLISHED = 4  # number of the best shapes found that are improved further
_PAIRS = 64  # promising pairs of moves whose cost is computed exactly
_PAID = 24  # moves that are tried together with others that pay for them


@dataclass(frozen=True)
class Window:
    """Range of accepted costs.

    Attributes:
        low: Lowest cost wanted; shapes may cost less if necessary.
        high: Highest cost allowed.
    """

    low: int
    high: int

    def below(self, costs: np.ndarray) -> np.ndarray:
        """Distance of costs below the window; infinite for costs above it."""
        return np.where(costs > self.high, np.inf, np.maximum(self.low - costs, 0.0))


def decode(
    cost: CostModel, width_probabilities: np.ndarray, depth_probabilities: np.ndarray, *, limit: int, tolerance: int = 0
) -> Shape:
    """Finds the most probable shape that costs at most `limit`, and if possible at least `limit - tolerance`.

    Units whose blocks are all dropped count with their most probable width; otherwise shallow shapes would always win.

    Args:
        cost: Cost model.
        width_probabilities: `[units, candidates]` in the order of the space's searched units.
        depth_probabilities: `[stages, candidates]` in the order of the space's searched stages.
        limit: Budget.
        tolerance: How far the cost may be below the budget.

    Raises:
        UserError: If no shape is cheap enough. The message gives the lowest cost.
    """
    smallest = smallest_shape(cost)
    check_reachable(cost, limit, smallest)
    choices = Choices(cost, width_probabilities, depth_probabilities)
    window = Window(limit - tolerance, limit)
    if choices.num_shapes <= _EXHAUSTIVE:
        return choices.shape(_ranked(choices, choices.all(), window)[0])
    starts, depths = _starts(choices, smallest), range(choices.num_units, choices.size)
    ends = [_into_window(choices, start, window, kept=kept) for start in starts for kept in ((), depths)]
    best = _ranked(choices, np.unique(np.stack(ends), axis=0), window)[:_POLISHED]
    (state, *_) = _ranked(choices, np.stack([_polish(choices, end, window) for end in best]), window)
    while (better := _better_paid(choices, state, window)) is not None:
        state = _polish(choices, better, window)
    return choices.shape(state)


def smallest_shape(cost: CostModel) -> Shape:
    """Finds the cheapest shape: starts at the smallest candidates and makes moves as long as the cost falls."""
    # With equal probabilities, only the cost matters.
    choices = Choices(cost, np.ones(cost.space.width_choices.shape), np.ones(cost.space.depth_choices.shape))
    state = np.zeros(choices.size, np.int64)
    while (moves := choices.moves(state)).spent.min() < 0:
        state = moves.apply(state, moves.spent.argmin())
    return choices.shape(state)


def check_reachable(cost: CostModel, limit: int, smallest: Shape | None = None) -> None:
    """Checks that some shape costs at most `limit`.

    Raises:
        UserError: If every shape costs more. The message gives the lowest cost.
    """
    lowest = cost(smallest or smallest_shape(cost))
    if lowest > limit:
        share = np.ceil(1000 * lowest / cost.full) / 1000
        raise UserError(
            f"`budget` is below what the network can reach. Expected at least {cost.kind}:{share:.3f} "
            f"({amount(cost.kind, lowest)}: every width and depth at its smallest). "
            f"Received: {amount(cost.kind, limit)}."
        )


def _ranked(choices: Choices, states: np.ndarray, window: Window) -> np.ndarray:
    """Sorts the affordable states by distance from the window, then by probability, best first."""
    below = window.below(choices.costs(states))
    order = np.lexsort((choices.losses(states), below))
    return states[order[np.isfinite(below[order])]]


def _starts(choices: Choices, smallest: Shape) -> list[np.ndarray]:
    """The most probable state, the same widths with the next most probable depths, and the cheapest shape."""
    frontier, seen = [choices.argmax], {tuple(choices.argmax)}
    starts: list[np.ndarray] = []
    while frontier and len(starts) < _STARTS:
        nearest = int(choices.depth_losses(np.stack(frontier)).argmin())
        state = frontier.pop(nearest)
        starts.append(state)
        for row in range(choices.num_units, choices.size):
            for candidate in range(choices.counts[row]):
                other = state.copy()
                other[row] = candidate
                if tuple(other) not in seen:
                    seen.add(tuple(other))
                    frontier.append(other)
    return [*starts, choices.state(smallest)]


def _into_window(choices: Choices, state: np.ndarray, window: Window, *, kept: Collection[int] = ()) -> np.ndarray:
    """Trades probability for cost, cheapest moves first: down until affordable, then up into the window.

    Args:
        choices: Choices of the space.
        state: State to start from.
        window: Range of costs to reach.
        kept: Choices that must not change.

    Returns:
        A state in the window, or the last state reached if no move leads on.
    """
    moves = choices.moves(state, kept=kept)
    while True:
        if moves.cost > window.high:
            sign, due, room = -1, moves.cost - window.high, np.inf
        elif moves.cost < window.low:
            sign, due, room = 1, window.low - moves.cost, window.high - moves.cost
        else:
            return state
        gained = sign * moves.spent
        (useful,) = np.nonzero((gained > 0) & (gained <= room))
        if not len(useful):
            return state
        # Gains beyond the missing amount have no value.
        price = moves.lost[useful] / np.minimum(gained[useful], due)
        order = useful[np.argsort(price, kind="stable")]
        taken = _cheapest(moves, order, gained, due / 2)
        after = choices.moves(moves.apply(state, *taken), kept=kept)
        if len(taken) > 1 and not gained[order[0]] <= sign * (after.cost - moves.cost) <= room:
            # The joint gain of several moves isn't the sum of their gains.
            taken = taken[:1]
            after = choices.moves(moves.apply(state, *taken), kept=kept)
        state, moves = moves.apply(state, *taken), after


def _cheapest(moves: Moves, order: np.ndarray, gained: np.ndarray, enough: float) -> list[int]:
    """Takes the first move, and further moves of other choices while their total gain is at most `enough`."""
    taken, changed, total = [order[0]], {moves.choice[order[0]]}, gained[order[0]]
    for move in order[1:]:
        if total + gained[move] > enough:
            break
        if moves.choice[move] not in changed:
            changed.add(moves.choice[move])
            taken.append(move)
            total += gained[move]
    return taken


def _polish(choices: Choices, state: np.ndarray, window: Window) -> np.ndarray:
    """Makes one move, or two at once, as long as the shape becomes more probable or comes closer to the window."""
    while True:
        moves = choices.moves(state)
        below, now = window.below(moves.cost + moves.spent), window.below(np.array(moves.cost))
        best = np.lexsort((moves.lost, below))[0]
        if below[best] < now or (below[best] == now and moves.lost[best] < -1e-9):
            state = moves.apply(state, best)
            continue
        better = _better_pair(choices, state, moves, window)
        if better is None:
            return state
        state = better


def _better_paid(choices: Choices, state: np.ndarray, window: Window) -> np.ndarray | None:
    """Tries moves that raise the probability, each paid for by any number of others. Returns a better state or None."""
    moves = choices.moves(state)
    order = np.argsort(moves.lost, kind="stable")[:_PAID]
    gains = order[moves.lost[order] < 0]
    ends = [_into_window(choices, moves.apply(state, gain), window, kept=[moves.choice[gain]]) for gain in gains]
    return _better(choices, state, ends, window)


def _better_pair(choices: Choices, state: np.ndarray, moves: Moves, window: Window) -> np.ndarray | None:
    """Tries pairs of moves in which one pays for the other. Returns a better state or None."""
    below = window.below(np.array(moves.cost))
    # Below the window any pair may lead up. Inside the window, one of the two moves must raise the probability.
    (gains,) = np.nonzero((moves.lost < 0) | (below > 0))
    lost = moves.lost[gains][:, None] + moves.lost
    distance = window.below(moves.cost + moves.spent[gains][:, None] + moves.spent)
    improves = (distance < below) | ((distance == below) & (lost < -1e-9))
    first, second = np.nonzero(improves & (moves.choice[gains][:, None] != moves.choice))
    order = np.lexsort((lost[first, second], distance[first, second]))[:_PAIRS]
    # The joint cost may differ from the sum, and so may the joint loss if one of the moves drops blocks.
    states = [moves.apply(state, gains[one], other) for one, other in zip(first[order], second[order], strict=True)]
    return _better(choices, state, states, window)


def _better(choices: Choices, state: np.ndarray, others: list[np.ndarray], window: Window) -> np.ndarray | None:
    """The best of the other states if it is better than `state`, otherwise None."""
    if not others:
        return None
    best = _ranked(choices, np.stack([state, *others]), window)[0]
    states = np.stack([state, best])
    (here, there), (lost_here, lost_there) = window.below(choices.costs(states)), choices.losses(states)
    return best if there < here or (there == here and lost_there < lost_here - 1e-9) else None
