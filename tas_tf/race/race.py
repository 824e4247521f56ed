"""A race between shapes: all are trained briefly, the better half goes on with its weights, until one is left."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel, reported
from tas_tf.data.share import reading
from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.lap import Lap, LapRecords
from tas_tf.race.rates import choose_rate, rates_to_try
from tas_tf.race.settings import RaceSettings, Rounds
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, copy_weights
from tas_tf.student.meter import budget_figures
from tas_tf.training.answers import Answers, Read, kept_steps
from tas_tf.training.checkpoint import Saving
from tas_tf.training.loop import SECONDS, Diverged
from tas_tf.training.network import Trainee, inherited
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import own_share

#: Largest number of held-out images that a shape is scored on.
MOST_SCORED = 10_000


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
    saving: Saving | None = None,
    verbose: int | str = "auto",
    say: Callable[[str], None] = lambda line: None,
    on_lap: Callable[[Lap, bool], None] = lambda lap, kept: None,
) -> RaceResult:
    """Finds the best of several shapes by brief trainings; resumes where an earlier call with the same folder stopped.

    First, learning rates are tried on the first proposal. Then each round trains all shapes that are left, with a rate
    that falls to 0, and drops the half with the higher loss on held-out images. The fewer shapes are left, the longer
    are their laps. Training goes on from the weights of the round before, and starts from those of the trained network.
    All laps of a round see the same images, so that the teacher is asked about them only once if the data can be read
    again in the same order.

    The first proposal takes part in every round: short laps underrate deep shapes, and it is the one that the winner
    has to beat.

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
        saving: Where to save laps to, finished and unfinished ones, and how often inside laps.
        verbose: As in Keras.
        say: Prints a line.
        on_lap: Called with each lap, and whether it was read from the folder.

    Raises:
        UserError: The batch doesn't fit the data, or training diverges at every learning rate.
    """
    part, scored_on = data.weights_part(race.race_share), data.held_out(race.race_share, MOST_SCORED)
    rounds = plan_rounds(data, settings, race, len(proposals))
    images = _images_of_rounds(part, settings, rounds, teacher, strategy)
    laps: list[Lap] = []
    records = LapRecords(saving)

    def enter(proposal: Proposal) -> _Contestant:
        trainee = functools.partial(
            Trainee, space, proposal.shape, settings, data.objective, strategy=strategy, teacher=teacher
        )
        return _Contestant(proposal, trainee, inherited(model, space, proposal.shape, logits=True).get_weights())

    def train(contestant: _Contestant, number: int, factor: float) -> Lap:
        """Trains a shape; if training diverges, its loss is infinite and its weights stay as they were."""
        trainee, steps, started = contestant.trainee, rounds.steps[number - 1], time.monotonic()
        read = images[number - 1]
        read.ask()
        asked, started, before = time.monotonic() - started, time.monotonic(), 0.0
        trainee.network.set_weights(contestant.weights)
        try:
            history = trainee.train(
                read,
                lr=settings.lr * factor,
                epochs=1,
                steps_per_epoch=steps,
                callbacks=callbacks,
                saving=records.training(contestant.proposal, number, factor),
                verbose=verbose,
            )
            # What was trained before an interruption counts too.
            before = max(0.0, history.history[SECONDS][-1] - (time.monotonic() - started))
            scores = workers.once(lambda: _settled_scores(trainee, part, scored_on))
        except Diverged:
            scores = {"loss": math.inf}
        if math.isfinite(scores["loss"]):
            workers.share(trainee.network.variables)
            contestant.weights = trainee.network.get_weights()
        else:
            scores["loss"] = math.inf
        times = {"seconds": round(before + time.monotonic() - started, 1), "asked": round(asked, 1)}
        metric = data.objective.metric
        return Lap(contestant.proposal, number, factor, steps, scores["loss"], metric, scores.get(metric), **times)

    def run(contestant: _Contestant, number: int, factor: float) -> Lap:
        found = workers.once(lambda: records.read(contestant.proposal, number, factor))
        if found is not None:
            lap, contestant.weights = found
        else:
            lap = train(contestant, number, factor)
            workers.once(lambda: records.write(lap, contestant.weights))
        laps.append(lap)
        on_lap(lap, found is not None)
        return lap

    field = [enter(one) for one in proposals]
    first, factor = field[0], race.rate_factors[0]
    known: dict[_Contestant, Lap] = {}
    if rounds.tries:
        tried: list[tuple[Lap, list[np.ndarray]]] = []
        untrained = first.weights
        for each in rates_to_try(race.rate_factors, lambda: [lap.loss for lap, _ in tried]):
            first.weights = untrained
            tried.append((run(first, 1, each), first.weights))
        _check_converges([lap for lap, _ in tried], settings.lr)
        index, why = choose_rate([lap for lap, _ in tried])
        lap, first.weights = tried[index]
        if why:
            say(why)
        factor, known = lap.rate_factor, {first: lap}
    for number, entries in enumerate(rounds.entries, 1):
        results = {one: known.pop(one) if one in known else run(one, number, factor) for one in field}
        _check_converges(list(results.values()), settings.lr)
        field.sort(key=lambda one: results[one].loss)
        if number == 1 and (further := combine([one.proposal for one in field])) is not None:
            field.append(enter(further))
            results[field[-1]] = run(field[-1], number, factor)
            field.sort(key=lambda one: results[one].loss)
        field = field[: -(-entries // 2)]
        if number < len(rounds.entries) and first not in field:
            field[-1] = first
    (winner,) = field
    trained = build_student(space, winner.proposal.shape, logits=True)
    trained.set_weights(winner.weights)
    network = copy_weights(trained, build_student(space, winner.proposal.shape))
    return RaceResult(winner.proposal, network, factor, tuple(laps))


def _settled_scores(trainee: Trainee, images: TrainingData, scored_on: tf.data.Dataset) -> dict[str, float]:
    trainee.settle(images)
    return trainee.score(scored_on)


def _images_of_rounds(
    data: TrainingData,
    settings: TrainSettings,
    rounds: Rounds,
    teacher: keras.Model | None,
    strategy: tf.distribute.Strategy,
) -> list[_Images]:
    """The batches of each round, with the teacher's logits if these can be kept."""
    dataset, per_epoch = data.training(settings.batch_size)
    # Each round sees images in orders of its own.
    epochs_before = [0, *itertools.accumulate(-(-steps // per_epoch) for steps in rounds.steps)]
    images: list[Read] = [functools.partial(dataset, epoch) for epoch in epochs_before[: len(rounds.steps)]]
    spec = dataset(0).element_spec
    keeps_answers = teacher is not None and shares_answers(data, settings, rounds)
    if keeps_answers:
        answers = Answers(teacher, strategy)
        images = [answers.to(read, steps) for read, steps in zip(images, rounds.steps, strict=True)]
        spec = answers.spec(*spec)
    return [_Images(read, spec, keeps_answers=keeps_answers) for read in images]


class _Images:
    """Batches of a round, as `fit` takes them.

    Args:
        read: Returns them.
        element_spec: Specification of a global batch.
        keeps_answers: Whether the first call of `read` asks the teacher, whose answers are then kept.
    """

    def __init__(self, read: Read, element_spec: Any, *, keeps_answers: bool) -> None:
        self._read, self.element_spec, self._keeps_answers = read, element_spec, keeps_answers

    def ask(self) -> None:
        """Asks the teacher, if its answers are kept; after the first time, they are there."""
        if self._keeps_answers:
            with reading(own_share()):
                self._read(0)

    def __call__(self, first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
        """The batches, the same ones in every epoch."""
        del first_epoch
        return self._read(first_step)


def shares_answers(data: TrainingData, settings: TrainSettings, rounds: Rounds) -> bool:
    """Whether the teacher of a race is asked only once about the images of a round.

    Args:
        data: Training images.
        settings: Settings of the student's training.
        rounds: Sizes of the rounds.
    """
    return sum(rounds.steps) <= kept_steps(data, settings.batch_size)


def _check_converges(laps: Sequence[Lap], lr: float) -> None:
    """Checks that not all laps have diverged.

    Raises:
        UserError: They have.
    """
    if not any(math.isfinite(lap.loss) for lap in laps):
        rates = dict.fromkeys(f"{lr * lap.rate_factor:g}" for lap in laps)
        raise UserError(
            "`rate_factors`: training diverged at every learning rate. Expected one that doesn't. Received: "
            f"{', '.join(rates)}. Lower `lr`."
        )


class _Contestant:
    """A shape in a race, with its weights so far.

    Args:
        proposal: The shape.
        make_trainee: Makes what trains it.
        weights: Initial weights.
    """

    def __init__(self, proposal: Proposal, make_trainee: Callable[[], Trainee], weights: list[np.ndarray]) -> None:
        self.proposal, self._make_trainee, self.weights = proposal, make_trainee, weights

    @cached_property
    def trainee(self) -> Trainee:
        """Made when it is needed: a resumed race may have no lap left for this shape."""
        return self._make_trainee()


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


def race_metrics(
    result: RaceResult, cost: CostModel, limit: int, spent: int, measure: Callable[[Shape], int] | None = None
) -> dict[str, Any]:
    """JSON-ready numbers about a race.

    Args:
        result: The outcome.
        cost: Cost model.
        limit: Budget.
        spent: Real cost of the winner.
        measure: Returns the measured cost of a shape, if costs are measured.
    """
    # The laps that tried other rates are those of other weights.
    own = [lap for lap in result.laps if (lap.proposal, lap.rate_factor) == (result.winner, result.rate_factor)]
    shapes = {lap.proposal.name: lap.proposal for lap in result.laps}
    return {
        **budget_figures(cost, limit, spent),
        "proposal": result.winner.name,
        "rate_factor": result.rate_factor,
        **({f"held_out_{own[-1].metric}": own[-1].score} if own else {}),
        "seconds": round(sum(lap.seconds + lap.asked for lap in result.laps), 1),
        "proposals": {
            name: {
                cost.kind: reported(cost.kind, cost(one.shape)),
                **({} if measure is None else {"measured": reported(cost.kind, measure(one.shape))}),
                "depths": list(one.depths),
            }
            for name, one in shapes.items()
        },
        "laps": [lap.to_json() for lap in result.laps],
    }
