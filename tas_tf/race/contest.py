"""A whole race: proposals within a budget, and the race between them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import TrainingData
from tas_tf.proposals.sensitivities import IMAGES, measure_sensitivities
from tas_tf.proposals.shortlist import Proposal, Proposer
from tas_tf.race.lap import Lap
from tas_tf.race.progress import RaceProgress
from tas_tf.race.race import RaceResult, plan_rounds, run_race
from tas_tf.race.settings import RaceSettings
from tas_tf.training.settings import TrainSettings


def find_by_race(
    cost: CostModel,
    limit: int,
    data: TrainingData,
    settings: TrainSettings,
    race: RaceSettings,
    *,
    model: keras.Model,
    found: Sequence[Proposal] = (),
    proposing: Mapping[str, Any],
    say: Callable[[str], None],
    on_lap: Callable[[Lap, bool], None] = lambda lap, kept: None,
    **options: Any,
) -> RaceResult:
    """Proposes shapes within a budget, and finds the best of them by a race.

    Args:
        cost: Cost model, which knows the search space.
        limit: Budget.
        data: Training images.
        settings: Settings of the student's training.
        race: Settings of the race.
        model: The trained network, with its channels in order of importance.
        found: Shapes that a search found, which take part in any case.
        proposing: Further arguments of `Proposer`.
        say: Prints a line.
        on_lap: As in `run_race`.
        **options: Further arguments of `run_race`.

    Raises:
        UserError: No shape is within the budget, the batch doesn't fit the data, or training diverges.
    """

    @functools.cache
    def proposer() -> Proposer:
        damage = measure_sensitivities(model, cost.space, data.calibration(**IMAGES), data.objective)
        return Proposer(cost, limit, damage, **proposing)

    def combine(ranked: Sequence[Proposal]) -> Proposal | None:
        return workers.once(lambda: proposer().combined(ranked))

    proposals = workers.once(lambda: proposer().shortlist(num_proposals(race, len(found)), found))
    show = RaceProgress(say, cost, proposals, plan_rounds(data, settings, race, len(proposals)), data.objective)

    def after(lap: Lap, kept: bool) -> None:
        show(lap, kept)
        on_lap(lap, kept)

    options |= {"model": model, "combine": combine, "say": say, "on_lap": after}
    return run_race(proposals, data, cost.space, settings, race, **options)


def num_proposals(race: RaceSettings, found: int) -> int:
    """Number of shapes that enter a race: those that a search found take part besides the uniform one in any case.

    Args:
        race: Settings of the race.
        found: Number of shapes that a search found.
    """
    return max(race.proposals, found + 1)
