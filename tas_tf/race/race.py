"""A race between shapes: all are trained briefly, the better half goes on with its weights, until one is left."""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json, write_model
from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import budget_figures
from tas_tf.training.loop import Diverged
from tas_tf.training.network import inherited, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.zoo.loading import load_file

#: Largest number of held-out images that a shape is scored on.
MOST_SCORED = 10_000
# Short trainings favour low learning rates: the highest one counts whose loss is at most this much that of the best.
_NEARLY = 1.2


@dataclass(frozen=True)
class Lap:
    """A brief training of one shape.

    Attributes:
        proposal: The shape.
        round: Number of the round, from 1.
        rate_factor: Factor of the learning rate.
        loss: Cross-entropy on held-out training images, which decides who goes on.
        accuracy: Accuracy on the same images, 0 to 1.
        seconds: Duration of the training.
    """

    proposal: Proposal
    round: int
    rate_factor: float
    loss: float
    accuracy: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The lap in JSON's types, with the name of the proposal; a loss that isn't finite becomes `None`."""
        return {**vars(self), "proposal": self.proposal.name, "loss": self.loss if math.isfinite(self.loss) else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], proposal: Proposal) -> Lap:
        """The inverse of `to_json`."""
        return cls(**{**data, "proposal": proposal, "loss": math.inf if data["loss"] is None else data["loss"]})


@dataclass(frozen=True)
class RaceResult:
    """The outcome of a race.

    Attributes:
        winner: The proposal that is left.
        network: Its network as trained so far.
        rate_factor: Factor of the learning rate that was chosen.
        laps: All laps in the order in which they were run.

    Example:
        ```python
        print(result.race.winner.name, len(result.race.laps))
        ```
    """

    winner: Proposal
    network: keras.Model = field(repr=False)
    rate_factor: float
    laps: tuple[Lap, ...]


def run_race(
    proposals: Sequence[Proposal],
    data: TrainingData,
    space: SearchSpace,
    settings: TrainSettings,
    race: RaceSettings,
    *,
    model: keras.Model,
    teacher: keras.Model | None,
    strategy: tf.distribute.Strategy,
    combine: Callable[[Sequence[Proposal]], Proposal | None] = lambda ranked: None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    verbose: int | str = "auto",
    on_lap: Callable[[Lap], None] = lambda lap: None,
) -> RaceResult:
    """Finds the best of several shapes by brief trainings; resumes where an earlier call with the same folder stopped.

    First, learning rates are tried on the first proposal. Then each round trains all shapes that are left, with a rate
    that falls to 0, and drops the half with the higher loss on held-out images. The fewer shapes are left, the longer
    are their laps. Training goes on from the weights of the round before, and starts from those of the trained network.

    Args:
        proposals: The shapes, at least one.
        data: Training images.
        space: Search space of the trained network.
        settings: Settings of the student's training, which determine the length of the laps.
        race: Settings of the race.
        model: The trained network, with its channels in order of importance.
        teacher: Network ending in logits, made in the strategy's scope, to learn from in addition to the labels.
        strategy: Distribution strategy.
        combine: Makes a further shape from those of the first round, best first, which then also takes part in it.
        callbacks: Keras callbacks for each training.
        checkpoint_dir: Folder to save each lap to.
        verbose: As in Keras.
        on_lap: Called with each lap once it is scored or read from the folder.

    Raises:
        UserError: The batch doesn't fit the data, or training diverges at every learning rate.
    """
    part, scored_on = data.weights_part(race.race_share), data.held_out(race.race_share, MOST_SCORED)
    rounds = plan_rounds(data, settings, race, len(proposals))
    _, per_epoch = part.training(settings.batch_size)
    # Each round sees images in orders of its own.
    epochs_before = [0, *itertools.accumulate(-(-steps // per_epoch) for steps in rounds.steps)]
    laps: list[Lap] = []

    def train(proposal: Proposal, start: keras.Model, number: int, factor: float, folder: Path | None):
        """Trains a shape; if training diverges, its loss is infinite and its weights stay as they were."""
        try:
            trained = train_network(
                space,
                proposal.shape,
                part,
                replace(settings, lr=settings.lr * factor),
                strategy=strategy,
                teacher=teacher,
                start=start,
                callbacks=callbacks,
                checkpoint_dir=folder,
                verbose=verbose,
                scored_on=scored_on,
                first_epoch=epochs_before[number - 1],
                steps=rounds.steps[number - 1],
            )
        except Diverged:
            return Lap(proposal, number, factor, loss=math.inf, accuracy=0.0, seconds=0.0), start
        scores = {name: trained.metrics[name] for name in ("loss", "accuracy", "seconds")}
        if not math.isfinite(scores["loss"]):
            scores["loss"] = math.inf
        return Lap(proposal, number, factor, **scores), trained.model

    def run(proposal: Proposal, start: keras.Model, number: int, factor: float) -> tuple[Lap, keras.Model]:
        folder = None if checkpoint_dir is None else Path(checkpoint_dir) / _stem(proposal.name, number, factor)
        if folder is not None and folder.with_suffix(".json").exists():
            lap = Lap.from_json(read_json(folder.with_suffix(".json")), proposal)
            network = load_file(folder.with_suffix(".keras"))
        else:
            lap, network = train(proposal, start, number, factor, folder)
            if folder is not None:
                write_model(folder.with_suffix(".keras"), network)
                write_json(folder.with_suffix(".json"), lap.to_json())  # last: it says that the lap is complete
                shutil.rmtree(folder, ignore_errors=True)
        laps.append(lap)
        on_lap(lap)
        return lap, network

    field = list(proposals)
    networks = {one.name: inherited(model, space, one.shape) for one in field}
    factor, known = race.rate_factors[0], {}
    if rounds.tries:
        first = field[0]
        tried = [run(first, networks[first.name], 1, each) for each in race.rate_factors]
        enough = _NEARLY * min(lap.loss for lap, _ in tried)
        if not math.isfinite(enough):
            raise UserError(
                f"`rate_factors`: training diverged at every learning rate. Expected one that doesn't. Received: "
                f"{', '.join(f'{settings.lr * each:g}' for each in race.rate_factors)}. Lower `lr`."
            )
        known[first.name] = max(
            (result for result in tried if result[0].loss <= enough), key=lambda result: result[0].rate_factor
        )
        factor = known[first.name][0].rate_factor
    for number, entries in enumerate(rounds.entries, 1):
        results = {one.name: known.pop(one.name, None) or run(one, networks[one.name], number, factor) for one in field}

        def loss_of(one: Proposal, results: Mapping[str, Any] = results) -> float:
            return results[one.name][0].loss

        field.sort(key=loss_of)
        if number == 1 and (further := combine(field)) is not None:
            results[further.name] = run(further, inherited(model, space, further.shape), number, factor)
            field = sorted([*field, further], key=loss_of)
        field = field[: -(-entries // 2)]
        networks = {one.name: results[one.name][1] for one in field}
    (winner,) = field
    return RaceResult(winner, networks[winner.name], factor, tuple(laps))


def plan_rounds(data: TrainingData, settings: TrainSettings, race: RaceSettings, proposals: int) -> Rounds:
    """Plans the rounds of a race on some data.

    Args:
        data: Training images.
        settings: Settings of the student's training.
        race: Settings of the race.
        proposals: Number of shapes.

    Raises:
        UserError: The batch doesn't fit the data.
    """
    _, per_epoch = data.training(settings.batch_size)
    return Rounds.plan(race, proposals=proposals, student_steps=settings.all_epochs * per_epoch)


def race_metrics(result: RaceResult, cost: CostModel, limit: int, spent: int) -> dict[str, Any]:
    """JSON-ready numbers about a race.

    Args:
        result: The outcome.
        cost: Cost model.
        limit: Budget.
        spent: Real cost of the winner.
    """
    scored = [lap.accuracy for lap in result.laps if lap.proposal == result.winner]
    shapes = {lap.proposal.name: lap.proposal for lap in result.laps}
    return {
        **budget_figures(cost, limit, spent),
        "proposal": result.winner.name,
        "rate_factor": result.rate_factor,
        "held_out_accuracy": scored[-1] if scored else None,
        "seconds": round(sum(lap.seconds for lap in result.laps), 1),
        "warnings": [],
        "proposals": {name: {cost.kind: cost(one.shape), "depths": list(one.depths)} for name, one in shapes.items()},
        "laps": [lap.to_json() for lap in result.laps],
    }


def _stem(name: str, number: int, factor: float) -> str:
    return f"round{number}_{re.sub('[^a-z0-9]+', '_', name)}_{factor:g}".replace(".", "p")
