"""Chooses the best of several random shapes: what a search has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tensorflow as tf

from tas_tf.baselines.shapes import Seed, baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import TrainingData
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.student.file_size import FileSize, find_within
from tas_tf.training.network import train_network
from tas_tf.training.settings import TrainSettings


@dataclass(frozen=True)
class RandomShape:
    """A random shape that was tried.

    Attributes:
        shape: Widths and depths.
        accuracy: Held-out accuracy after the brief training, 0 to 1.
        seconds: That the training took.
    """

    shape: Shape
    accuracy: float
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
    checkpoint_dir: str | Path | None = None,
    verbose: int | str = "auto",
    on_tried: Callable[[RandomShape], None] = lambda tried: None,
    file_size: FileSize | None = None,
) -> RandomShape:
    """Trains random shapes briefly on the weights' half of the data and takes the best on the architecture's.

    These are the halves that a search sees, so that neither has an advantage; test images play no part.

    Args:
        cost: What counts.
        task: Images to learn from.
        settings: Of the brief training; its seed also draws the shapes.
        count: Shapes to try.
        limit: The budget.
        tolerance: How far below it a shape may be.
        held_out_limit: Images that a shape is scored on at most.
        split_share: Share of the training images that the weights get.
        strategy: What it runs on.
        checkpoint_dir: Where to save each epoch of each: an interrupted call goes on where it was.
        verbose: As in Keras.
        on_tried: Told of each shape once it is scored.
        file_size: Measures files; needed for a budget in bytes alone.

    Returns:
        The best; the first of equal ones.

    Raises:
        UserError: The budget can't be reached, or the batch doesn't fit.
    """
    half, scored_on = task.weights_part(split_share), task.held_out(split_share, held_out_limit)
    tried = []
    for number in range(count):
        seed = [settings.seed, number] if number else settings.seed
        draw = partial(_draw, cost, tolerance, seed)
        shape, _ = find_within(draw, cost, limit, file_size)
        result = train_network(
            cost.space,
            shape,
            half,
            settings,
            strategy=strategy,
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir) / str(number),
            verbose=verbose,
            scored_on=scored_on,
        )
        tried.append(RandomShape(shape, result.metrics["accuracy"], result.metrics["seconds"]))
        on_tried(tried[-1])
    return max(tried, key=lambda one: one.accuracy)


def _draw(cost: CostModel, tolerance: int, seed: Seed, limit: int) -> Shape:
    return baseline_shape("random", cost, limit=limit, tolerance=tolerance, seed=seed)
