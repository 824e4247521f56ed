"""Chooses the best of several random shapes, which a search has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tas_tf.baselines.shapes import affordable_baseline
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import TrainingData
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.student.meter import Meter
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import train_network
from tas_tf.training.settings import TrainSettings


@dataclass(frozen=True)
class RandomShape:
    """A random shape that was tried.

    Attributes:
        shape: Widths and depths.
        score: Held-out score after the brief training, such as the accuracy, 0 to 1.
        seconds: Duration of the training.
    """

    shape: Shape
    score: float
    seconds: float


def best_random_shape(
    cost: CostModel,
    task: TrainingData,
    settings: TrainSettings,
    *,
    count: int,
    limit: int,
    tolerance: int,
    held_out_limit: int,
    split_share: float = SearchSettings.split_share,
    strategy: tf.distribute.Strategy,
    saving: Saving | None = None,
    verbose: int | str = "auto",
    on_tried: Callable[[RandomShape], None] = lambda tried: None,
    meter: Meter | None = None,
) -> RandomShape:
    """Trains random shapes briefly on the weights' half of the data and picks the best on the architecture's half.

    A search uses the same halves, so neither method has an advantage. Test images aren't used.

    Args:
        cost: Cost model.
        task: Training images.
        settings: Settings of the brief training; its seed also determines the shapes.
        count: Number of shapes to try.
        limit: Budget.
        tolerance: How far below the budget a shape may cost.
        held_out_limit: Largest number of images that a shape is scored on.
        split_share: Share of the training images for the weights.
        strategy: Distribution strategy.
        saving: Where to save every training to. An interrupted call resumes from there.
        verbose: As in Keras.
        on_tried: Called with each shape once it is scored.
        meter: Measures shapes; needed for budgets in bytes or time.

    Returns:
        The best shape; the first one if several are equally good.

    Raises:
        UserError: The budget can't be reached, or the batch doesn't fit the data.
    """
    half, scored_on = task.weights_part(split_share), task.held_out(split_share, held_out_limit)
    tried = []
    for number in range(count):
        seed = [settings.seed, number] if number else settings.seed
        shape, _ = affordable_baseline("random", cost, limit=limit, tolerance=tolerance, meter=meter, seed=seed)
        result = train_network(
            cost.space,
            shape,
            half,
            settings,
            strategy=strategy,
            saving=None if saving is None else saving.within(str(number)),
            verbose=verbose,
            scored_on=scored_on,
        )
        tried.append(RandomShape(shape, result.metrics[task.objective.metric], result.metrics["seconds"]))
        on_tried(tried[-1])
    return max(tried, key=lambda one: task.objective.goodness(one.score))
