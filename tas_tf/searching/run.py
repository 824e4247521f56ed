"""Runs a search from data to a shape: supernet, optimizers, schedules, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.searching.monitor import BestShape, SearchMonitor, SearchResult
from tas_tf.searching.settings import SearchSettings
from tas_tf.searching.step import PASSES, CostTarget, Searcher
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import Meter, check_smallest, make_cost
from tas_tf.supernet.build import Supernet, build_supernet
from tas_tf.supernet.held_out import HeldOutScore
from tas_tf.supernet.initial_logits import lean_towards_budget
from tas_tf.supernet.transfer import load_teacher
from tas_tf.training.checkpoint import Saving
from tas_tf.training.loop import fit
from tas_tf.training.memory import warn_of_shortage
from tas_tf.training.optimizers import arch_adam, cosine, sgd
from tas_tf.training.strategy import check_batch_size


def cost_and_limit(space: SearchSpace, budget: Budget, meter: Meter | None = None) -> tuple[CostModel, int]:
    """Returns the cost model and the limit of a budget.

    Args:
        space: Search space.
        budget: Largest cost of a shape.
        meter: Measures shapes; needed for budgets in bytes or time.

    Raises:
        UserError: The budget can't be reached (the message says what can), or is more than the unpruned network costs.
    """
    cost = make_cost(space, budget.kind, meter)
    limit = budget.limit(cost.full)
    if limit > cost.full:
        raise UserError(
            f"`budget` is more than {space.graph.network} costs. Expected at most {amount(cost.kind, cost.full)}. "
            f"Received: {amount(cost.kind, limit)}."
        )
    check_smallest(cost, limit, meter)
    return cost, limit


def run_search(
    space: SearchSpace,
    task: TrainingData,
    budget: Budget,
    settings: SearchSettings,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    callbacks: Callable[[SearchMonitor], Sequence[keras.callbacks.Callback]] = lambda monitor: (),
    saving: Saving | None = None,
    verbose: int | str = "auto",
    meter: Meter | None = None,
) -> SearchResult:
    """Searches widths and depths; resumes where an earlier call with the same folder stopped.

    Args:
        space: Search space.
        task: Training images.
        budget: Largest cost of the shape.
        settings: Settings of the search.
        strategy: Distribution strategy.
        teacher: Trained network, for `settings.from_teacher`.
        callbacks: Function that makes further callbacks from the search's monitor.
        saving: Where to save to and to resume from.
        verbose: As in Keras.
        meter: Measures shapes; needed for budgets in bytes or time.

    Raises:
        UserError: The budget can't be reached, the batch doesn't fit the data, or training diverges.
    """
    cost, limit = cost_and_limit(space, budget, meter)
    dataset, steps = task.searching(settings.batch_size, settings.split_share)
    check_batch_size(strategy, settings.batch_size, settings.accumulate)
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        searcher = _make_searcher(space, cost, limit, settings, steps, task, teacher)
        searcher.best = BestShape(space, name="best")  # saved with each epoch, as a part of the searcher
    memory = {"accumulate": settings.accumulate, "recompute": settings.recompute, "momentum": settings.momentum > 0}
    replicas = strategy.num_replicas_in_sync
    warn_of_shortage(searcher.supernet.body, settings.batch_size, replicas=replicas, passes=PASSES, **memory)
    score = _make_score(searcher.supernet, space, task, settings)
    monitor = SearchMonitor(searcher.supernet, cost, limit, settings, score, searcher.best, meter)
    history = fit(
        searcher,
        dataset,
        strategy=strategy,
        epochs=settings.all_epochs,
        steps_per_epoch=steps,
        callbacks=[TemperatureSchedule(settings), *callbacks(monitor)],
        saving=saving,
        validation=monitor,
        verbose=verbose,
    )
    return monitor.result(history.history)


def _make_searcher(space, cost, limit, settings: SearchSettings, steps: int, task: TrainingData, teacher) -> Searcher:
    drawn = settings.num_drawn or space.width_choices.longest
    supernet = build_supernet(space, num_drawn=drawn, noise=settings.noise, seed=settings.seed)
    if settings.from_teacher:
        if teacher is None:
            raise UserError("`from_teacher` needs a trained teacher. Received: none.")
        load_teacher(supernet, teacher, space)
    expected_cost = ExpectedCost(cost)
    if settings.init_logits == "budget":
        lean_towards_budget(supernet, expected_cost, limit / cost.full)
    searcher = Searcher(
        supernet,
        task.objective,
        expected_cost,
        CostTarget(limit / cost.full, settings.tolerance, settings.cost_weight, settings.cost_driver),
        arch_l2=settings.arch_l2,
        parts=settings.accumulate,
        recompute=settings.recompute,
        jit_compile=settings.jit_compile,
        name="searcher",
    )
    rate = cosine(settings.lr, epochs=settings.all_epochs, steps_per_epoch=steps, warmup_epochs=settings.warmup_epochs)
    searcher.compile(
        sgd(rate, momentum=settings.momentum, l2=settings.l2),
        arch_adam(settings.arch_rate(steps * settings.all_epochs), betas=settings.arch_betas),
    )
    return searcher


def _make_score(supernet: Supernet, space: SearchSpace, task: TrainingData, settings: SearchSettings) -> HeldOutScore:
    weights = task.weights_part(settings.split_share)
    # Shuffled, as in training: variances over batches of a single class miss how classes differ.
    calibration = weights.calibration(min(settings.batch_size, 128), settings.calibration_batches)
    held_out = task.held_out(settings.split_share, settings.held_out_limit)
    return HeldOutScore(supernet, space, calibration, held_out, task.objective)


class TemperatureSchedule(keras.callbacks.Callback):
    """Sets the temperature of the draws at the start of each epoch, along half a cosine."""

    def __init__(self, settings: SearchSettings) -> None:
        super().__init__()
        self._settings = settings

    def at(self, epoch: int) -> float:
        """Returns the temperature of an epoch, counted from 0."""
        first, last = self._settings.temperature_start, self._settings.temperature_end
        epochs = self._settings.all_epochs
        progress = epoch / (epochs - 1) if epochs > 1 else 1.0
        return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch's temperature."""
        self.model.supernet.gates.temperature.assign(self.at(epoch))

    def on_epoch_end(self, epoch, logs=None):
        """Logs the epoch's temperature."""
        if logs is not None:
            logs["temperature"] = self.at(epoch)
