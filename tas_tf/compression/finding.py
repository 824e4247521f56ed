"""Finds the shape of a student: by a race between proposals, or by the differentiable search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.data.training_data import TrainingData
from tas_tf.proposals.drawn import drawn_proposals
from tas_tf.proposals.shortlist import Proposal, Proposer
from tas_tf.race.contest import find_by_race
from tas_tf.race.race import MOST_SCORED, RaceResult
from tas_tf.race.settings import RaceSettings
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import cost_and_limit, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.meter import Meter
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.timing.duration import Deadline
from tas_tf.timing.pace import measure_pace
from tas_tf.timing.plan import Workload, check_enough, epochs_within
from tas_tf.training.settings import TrainSettings


@dataclass(frozen=True)
class Found:
    """A shape and what its student starts with.

    Attributes:
        shape: Widths and depths.
        network: Network of the shape with the weights that the race or the search left.
        training: Settings of the student's training.
        race: The outcome of the race, if there was one.
        search: The result of the search, if there was one.
    """

    shape: Shape
    network: keras.Model
    training: TrainSettings
    race: RaceResult | None = None
    search: SearchResult | None = None


@dataclass(frozen=True)
class Finder:
    """What a race and a search have in common.

    Attributes:
        space: Search space of the model.
        model: The trained model, with its channels in order of importance.
        data: Its data.
        budget: Highest cost of the student.
        meter: Measures shapes, for budgets in bytes or time.
        training: Settings of the student's training.
        strategy: Devices.
        callbacks: Keras callbacks.
        verbose: As in Keras.
    """

    space: SearchSpace
    model: keras.Model
    data: TrainingData
    budget: Budget
    meter: Meter | None
    training: TrainSettings
    strategy: tf.distribute.Strategy
    callbacks: Sequence[keras.callbacks.Callback]
    verbose: int | str

    def say(self, text: str) -> None:
        """Prints a line unless `verbose` is 0."""
        if self.verbose != 0:
            print(text, flush=True)

    def by_search(self, settings: SearchSettings) -> Found:
        """Searches differentiably.

        Args:
            settings: Settings of the search.
        """
        result = run_search(
            self.space,
            self.data,
            self.budget,
            settings,
            strategy=self.strategy,
            teacher=self.model,
            callbacks=lambda monitor: self.callbacks,
            verbose=self.verbose,
            meter=self.meter,
        )
        network = build_student(self.space, result.shape)
        inherit_from_supernet(network, result.supernet, self.space, result.shape)
        return Found(result.shape, network, self.training, search=result)

    def by_race(
        self,
        settings: RaceSettings,
        teacher: keras.Model,
        *,
        searching: SearchSettings,
        divisor: int,
        deadline: Deadline | None = None,
    ) -> Found:
        """Lets several shapes race.

        Args:
            settings: Settings of the race.
            teacher: Network ending in logits to learn from.
            searching: Settings of the search, if searched shapes take part.
            divisor: Widths of uniform shapes are rounded down to multiples of this number.
            deadline: When all shall be done; it determines the number of shapes and the epochs.

        Raises:
            UserError: The time isn't enough, or the budget can't be reached.
        """
        space, data, training = self.space, self.data, self.training
        cost, limit = cost_and_limit(space, self.budget, self.meter)
        proposing = {"divisor": divisor, "meter": self.meter, "seed": training.seed}
        workload = None
        if deadline is not None:
            started = time.monotonic()
            timed = Proposer(cost, limit, **proposing).shortlist(1)[0].shape
            seconds = time.monotonic() - started
            scored_on = data.held_out(settings.race_share, MOST_SCORED)
            options = {"strategy": self.strategy, "scored_on": scored_on, "teacher": teacher, "saves": False}
            pace = measure_pace(space, timed, data, training, **options)
            workload = Workload.of(pace, settings, data, training, proposing=seconds)
            left = deadline.left
            check_enough(deadline.seconds - left + workload.shortest, deadline.seconds)
            plan = workload.plan(left)
            self.say(f"Plan: {plan}.")
            settings = replace(settings, proposals=plan.proposals)
            training = replace(training, epochs=plan.epochs, warmup_epochs=0)
        found: list[Proposal] = []
        searched = None
        if settings.searched:
            searched = self.by_search(searching).search
            drawing = {"limit": limit, "count": settings.searched, "meter": self.meter, "seed": searching.seed}
            found = drawn_proposals(cost, searched.shape, searched.probabilities, **drawing)
        result = find_by_race(
            *(cost, limit, data, training, settings),
            model=self.model,
            found=found,
            proposing=proposing,
            say=self.say,
            teacher=teacher,
            strategy=self.strategy,
            callbacks=self.callbacks,
            verbose=0 if self.verbose == "auto" else self.verbose,
        )
        if workload is not None:
            laps = [lap.to_json() for lap in result.laps]
            pace = workload.pace.after_race(laps, result.winner.name, kept_steps=workload.kept_steps)
            epochs = epochs_within(deadline.left, pace, workload.steps_per_epoch, workload.views)
            training = replace(training, epochs=epochs)
            self.say(f"{deadline}, epochs to train: {epochs}.")
        training = replace(training, lr=training.lr * result.rate_factor)
        return Found(result.winner.shape, result.network, training, race=result, search=searched)
