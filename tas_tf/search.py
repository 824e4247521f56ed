"""Runs a search from data to a shape: schedules, held-out score, decoding, and what was learned on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.initializers import Constant

from tas_tf.budget import Budget
from tas_tf.cost import CostModel
from tas_tf.data.task import Task
from tas_tf.decode import check_reachable, decode
from tas_tf.errors import UserError
from tas_tf.expected_cost import ExpectedCost
from tas_tf.held_out import HeldOutScore
from tas_tf.initial_logits import START_KINDS, lean_towards_budget
from tas_tf.searcher import CostTarget, Searcher
from tas_tf.shape import Shape
from tas_tf.space import SearchSpace
from tas_tf.supernet import Supernet, build_supernet
from tas_tf.training import SECONDS, arch_adam, cosine, fit, sgd
from tas_tf.transfer import load_teacher

#: Which epoch's shape a search ends with.
KEPT_SHAPES = ("last", "best")
#: Mean entropy, as a share of the uniform distribution's, above which a search hasn't decided.
UNDECIDED = 0.8


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; the defaults are the paper's for CIFAR but for `arch_lr` and `cost_driver`.

    Attributes:
        epochs: Epochs over the smaller half of the data.
        warmup_epochs: Of these, epochs in which the rate of the weights rises.
        batch_size: Images in each of an iteration's two batches, over all replicas.
        lr: Highest learning rate of the weights.
        momentum: Nesterov momentum of the weights.
        l2: Penalty in the gradient of the weights.
        arch_lr: Learning rate of the logits; `None` makes them move by about 20 in all, within 1e-3 and 0.1.
        arch_betas: Adam's decay rates.
        arch_l2: Penalty in the gradient of the logits.
        temperature: At the first and the last epoch, along half a cosine.
        num_drawn: Widths drawn at once; `None` draws all.
        noise: Whether draws are perturbed by Gumbel noise.
        tolerance: How far below the budget a shape may stay, a share of the unpruned cost.
        cost_weight: Of the cost's loss.
        cost_driver: Whose cost is compared with the budget.
        split_share: Share of the training images that the weights get.
        init_logits: Where logits start: all alike, or at the budget.
        from_teacher: Starts the supernet from the teacher's weights.
        calibration_batches: Batches that running statistics are averaged over before a shape is scored.
        held_out_limit: Images that a shape is scored on at most.
        keep_shape: The last epoch's shape, or the best by held-out accuracy; all are within the budget.
        jit_compile: XLA for the gradients.
        seed: Of weights, logits and draws.
    """

    epochs: int = 600
    warmup_epochs: int = 0
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    l2: float = 5e-4
    arch_lr: float | None = None
    arch_betas: tuple[float, float] = (0.5, 0.999)
    arch_l2: float = 1e-3
    temperature: tuple[float, float] = (5.0, 0.1)
    num_drawn: int | None = 2
    noise: bool = True
    tolerance: float = 0.05
    cost_weight: float = 2.0
    cost_driver: str = "max"
    split_share: float = 0.5
    init_logits: str = "uniform"
    from_teacher: bool = False
    calibration_batches: int = 5
    held_out_limit: int = 10_000
    keep_shape: str = "last"
    jit_compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.init_logits not in START_KINDS:
            raise UserError(f"`init_logits` must be one of {', '.join(START_KINDS)}. Received: {self.init_logits!r}.")
        if self.keep_shape not in KEPT_SHAPES:
            raise UserError(f"`keep_shape` must be one of {', '.join(KEPT_SHAPES)}. Received: {self.keep_shape!r}.")
        if not all(0 < temperature < math.inf for temperature in self.temperature):
            raise UserError(f"`temperature` must be above 0 throughout. Received: {self.temperature}.")
        if not 0 < self.split_share < 1:
            raise UserError(f"`split_share` must lie between 0 and 1. Received: {self.split_share}.")
        if not all(0 <= beta < 1 for beta in self.arch_betas):
            raise UserError(f"`arch_betas` must be from 0 up to 1, 1 excluded. Received: {self.arch_betas}.")
        self.target(1.0)

    def target(self, budget: float) -> CostTarget:
        """What the cost is pushed to, for a budget as a share of the unpruned cost."""
        return CostTarget(budget, self.tolerance, self.cost_weight, self.cost_driver)

    def arch_rate(self, steps: int) -> float:
        """Learning rate of the logits for so many steps: with few, a small one would hardly move them."""
        return self.arch_lr if self.arch_lr is not None else min(0.1, max(1e-3, 20 / steps))


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        shape: The most probable shape within the budget, of the epoch that `SearchSettings.keep_shape` names.
        metrics: Numbers about it, ready for JSON.
        history: Values by epoch.
        warnings: What to change where the search did not converge.
        supernet: The supernet as it was at the end, its running statistics those of the shape; `supernet_accuracy` of
            the metrics is the held-out accuracy of just that.
    """

    shape: Shape
    metrics: dict[str, Any]
    history: dict[str, list[float]]
    warnings: tuple[str, ...]
    supernet: Supernet = field(repr=False)


def prepare(space: SearchSpace, budget: Budget) -> tuple[CostModel, int]:
    """The cost model and the limit of a budget.

    Raises:
        UserError: The budget can't be reached, says what can; or the unpruned network is within it.
    """
    cost = CostModel(space, budget.kind)
    limit = budget.limit(cost.full)
    if limit > cost.full:
        raise UserError(
            f"`budget` is more than {space.graph.network} costs. Expected at most {cost.full:,} {cost.kind}. "
            f"Received: {limit:,}."
        )
    check_reachable(cost, limit)
    return cost, limit


def run_search(
    space: SearchSpace,
    task: Task,
    budget: Budget,
    settings: SearchSettings,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    callbacks: Callable[[SearchMonitor], Sequence[keras.callbacks.Callback]] = lambda monitor: (),
    checkpoint_dir: str | Path | None = None,
    verbose: int | str = "auto",
) -> SearchResult:
    """Searches widths and depths; resumes where an earlier call with the same folder stopped.

    Args:
        space: What may change.
        task: Images to learn from.
        budget: What the shape may cost.
        settings: Of the search.
        strategy: What it runs on.
        teacher: The trained network, for `settings.from_teacher`.
        callbacks: Makes further callbacks, given the monitor of the search.
        checkpoint_dir: Where to save each epoch.
        verbose: As in Keras.

    Raises:
        UserError: The budget can't be reached, the batch doesn't fit, or training diverges.
    """
    cost, limit = prepare(space, budget)
    dataset, steps = task.searching(settings.batch_size, settings.split_share)
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        searcher = _make_searcher(space, cost, limit, settings, steps, task, teacher)
        searcher.best = BestShape(space, name="best")  # as a part of the searcher it is saved with each epoch
    score = _make_score(searcher.supernet, space, task, settings)
    monitor = SearchMonitor(searcher.supernet, cost, limit, settings, score, searcher.best)
    history = fit(
        searcher,
        dataset,
        strategy=strategy,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        callbacks=[TemperatureSchedule(settings), *callbacks(monitor)],
        checkpoint_dir=checkpoint_dir,
        validation=monitor,
        verbose=verbose,
    )
    return monitor.result(history.history)


def _make_searcher(space, cost, limit, settings: SearchSettings, steps: int, task: Task, teacher) -> Searcher:
    drawn = settings.num_drawn or max((len(unit.candidates) for unit in space.units), default=1)
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
        expected_cost,
        settings.target(limit / cost.full),
        arch_l2=settings.arch_l2,
        jit_compile=settings.jit_compile,
        name="searcher",
    )
    rate = cosine(settings.lr, epochs=settings.epochs, steps_per_epoch=steps, warmup_epochs=settings.warmup_epochs)
    searcher.compile(
        sgd(rate, momentum=settings.momentum, l2=settings.l2),
        arch_adam(settings.arch_rate(steps * settings.epochs), betas=settings.arch_betas),
    )
    return searcher


def _make_score(supernet: Supernet, space: SearchSpace, task: Task, settings: SearchSettings) -> HeldOutScore:
    weights, _ = task.halves(settings.split_share)
    # Shuffled, as in training: batches of one class each would hide how classes differ from the variances.
    calibration = task.shuffled(weights, min(settings.batch_size, 128, len(weights)), settings.calibration_batches)
    return HeldOutScore(supernet, space, calibration, task.held_out(settings.split_share, settings.held_out_limit))


class TemperatureSchedule(keras.callbacks.Callback):
    """Sets the temperature of the draws at the start of each epoch, along half a cosine."""

    def __init__(self, settings: SearchSettings) -> None:
        super().__init__()
        self._settings = settings

    def at(self, epoch: int) -> float:
        """The temperature in an epoch, counted from 0."""
        (first, last), epochs = self._settings.temperature, self._settings.epochs
        progress = epoch / (epochs - 1) if epochs > 1 else 1.0
        return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch's temperature."""
        self.model.supernet.gates.temperature.assign(self.at(epoch))

    def on_epoch_end(self, epoch, logs=None):
        """Logs it."""
        if logs is not None:
            logs["temperature"] = self.at(epoch)


class BestShape(keras.layers.Layer):
    """The shape of the highest held-out accuracy so far, kept as variables."""

    def __init__(self, space: SearchSpace, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self._space = space
        count = len(space.units) + len(space.stages)
        self.counts = self.add_weight(name="counts", shape=(count,), dtype="int64", initializer="zeros")
        self.accuracy = self.add_weight(name="accuracy", shape=(), dtype="float64", initializer=Constant(-1.0))

    def consider(self, shape: Shape, accuracy: float) -> None:
        """Takes a shape unless an earlier one was better; accuracies are 0 to 1."""
        if accuracy >= float(keras.ops.convert_to_numpy(self.accuracy)):
            self.accuracy.assign(accuracy)
            self.counts.assign([*shape.widths.values(), *shape.depths.values()])

    def shape(self) -> Shape:
        """The best one.

        Raises:
            ValueError: None was considered yet.
        """
        if float(keras.ops.convert_to_numpy(self.accuracy)) < 0:
            raise ValueError("No shape was considered yet.")
        counts = keras.ops.convert_to_numpy(self.counts)
        widths, depths = np.split(counts, [len(self._space.units)])
        return Shape.of(self._space, widths, depths)


class SearchMonitor:
    """Decodes the distributions after each epoch and scores what they say."""

    def __init__(
        self,
        supernet: Supernet,
        cost: CostModel,
        limit: int,
        settings: SearchSettings,
        score: HeldOutScore,
        best: BestShape,
    ) -> None:
        self.supernet, self.cost, self.limit, self.settings = supernet, cost, limit, settings
        self.space = cost.space
        self._score, self._best = score, best
        self.shape: Shape | None = None

    def __call__(self) -> dict[str, float]:
        """Held-out accuracy and cost of the decoded shape, and how decided the distributions are."""
        self.shape = self.decode()
        accuracy = self._score(self.shape)
        self._best.consider(self.shape, accuracy)
        widths, depths = self.entropies()
        return {
            "accuracy": accuracy,
            "cost": self.cost.of(self.shape) / self.cost.full,
            "width_entropy": widths,
            "depth_entropy": depths,
        }

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Of widths and depths, rows in the order of the space's searched units and stages."""
        return tuple(tensor.numpy() for tensor in self.supernet.gates.probabilities())

    def decode(self) -> Shape:
        """The most probable shape within the budget."""
        tolerance = int(self.settings.tolerance * self.cost.full)
        return decode(self.cost, *self.probabilities(), limit=self.limit, tolerance=tolerance)

    def entropies(self) -> tuple[float, float]:
        """Mean entropy of widths and of depths, as shares of the uniform distribution's; 0 where nothing is chosen."""
        counts = (self.space.searched_units, self.space.searched_stages)
        means = []
        for rows, choices in zip(self.probabilities(), counts, strict=True):
            shares = [
                -(row[row > 0] * np.log(row[row > 0])).sum() / np.log(len(choice.candidates))
                for row, choice in zip(rows, choices, strict=False)
            ]
            means.append(float(np.mean(shares)) if shares else 0.0)
        return means[0], means[1]

    def result(self, history: dict[str, list[float]]) -> SearchResult:
        """Settles on a shape, leaves its running statistics in the supernet, and gathers everything."""
        self.shape = self._best.shape() if self.settings.keep_shape == "best" else self.decode()
        accuracies, kind = history["val_accuracy"], self.cost.kind
        # Of equal ones the last, as `BestShape` has it.
        kept = max(range(len(accuracies)), key=lambda epoch: (accuracies[epoch], epoch))
        kept = kept if self.settings.keep_shape == "best" else len(accuracies) - 1
        at_the_end = self._score(self.shape)
        widths, depths = self.entropies()
        metrics = {
            "budget_kind": kind,
            f"budget_{kind}": self.limit,
            f"shape_{kind}": self.cost.of(self.shape),
            f"shape_{kind}_ratio": self.cost.of(self.shape) / self.cost.full,
            "held_out_accuracy": accuracies[kept],
            "kept_epoch": kept + 1,
            "supernet_accuracy": at_the_end,
            "width_entropy": widths,
            "depth_entropy": depths,
            "epochs": self.settings.epochs,
            "seed": self.settings.seed,
            "seconds": round(sum(history[SECONDS]), 1),
        }
        by_epoch = {
            f"expected_{kind}": [share * self.cost.full for share in history["expected_cost"]],
            f"argmax_{kind}": [share * self.cost.full for share in history["argmax_cost"]],
            "held_out_accuracy": accuracies,
        }
        return SearchResult(self.shape, metrics, by_epoch, tuple(self._warnings(widths, depths)), self.supernet)

    def _warnings(self, widths: float, depths: float) -> Iterator[str]:
        for axis, entropy in (("width", widths), ("depth", depths)):
            if entropy > UNDECIDED:
                yield (
                    f"The {axis} distributions have not converged: mean entropy {entropy:.2f} of the uniform one's. "
                    "Raise --arch_lr or --search_epochs."
                )
