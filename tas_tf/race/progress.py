"""What a race prints while it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.objectives.objective import Objective
from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.lap import Lap
from tas_tf.race.settings import Rounds


class RaceProgress:
    """Prints who takes part in a race, then each lap; the `on_lap` of `run_race`.

    Args:
        say: Prints a line.
        cost: Cost model.
        proposals: Shapes that take part.
        rounds: Sizes of the rounds.
        objective: What the outputs mean.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        cost: CostModel,
        proposals: Sequence[Proposal],
        rounds: Rounds,
        objective: Objective,
    ) -> None:
        self._say, self._cost, self._objective = say, cost, objective
        self._most, self._done = rounds.num_laps, 0
        steps = "/".join(map(str, rounds.steps))
        names = ", ".join(one.name for one in proposals)
        if len(proposals) > 1:
            by_round = " by round" if len(rounds.steps) > 1 else ""
            say(f"{len(proposals)} shapes race, in up to {self._most} laps of {steps} steps{by_round}: {names}.")
        elif rounds.num_laps:
            say(f"One shape, {names}: {rounds.tries} learning rates are tried for {steps} steps each.")

    def __call__(self, lap: Lap, kept: bool) -> None:
        """Prints a lap.

        Args:
            lap: The lap.
            kept: Whether it was run earlier.
        """
        self._done += 1
        cost = amount(self._cost.kind, self._cost(lap.proposal.shape))
        earlier = " (done before)" if kept else ""
        self._say(
            f"lap {self._done} of up to {max(self._most, self._done)}, round {lap.round}{earlier}: "
            f"{lap.proposal.name} ({cost}), learning rate x{lap.rate_factor:g}: held-out loss {lap.loss:.4f}"
            + ("" if lap.score is None else f", {self._objective.told(lap.score)}")
        )
