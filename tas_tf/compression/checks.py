"""Checks that a model and its data fit, before and after anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.training.class_order import count_answers, images_to_compare, new_table
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import is_near_chance

#: How to give the classes another order.
REMEDY = "Give labels as numbers of the outputs; texts are sorted by name."


def warn_of_chance(metrics: Mapping[str, Any], data: TrainingData) -> None:
    """Warns of a student that learned nothing."""
    if is_near_chance(metrics, data):
        warnings.warn(
            f"The student is near chance level: its {_in_words(data)} on `validation` is "
            f"{metrics[data.objective.metric]:.3f}, guessing gives {data.chance:.3f}. Try more epochs, a lower "
            "learning rate (`lr` of `training`) or a higher budget.",
            stacklevel=3,
        )


@dataclass(frozen=True)
class OnTraining:
    """How the model does on some training images.

    Attributes:
        scores: Its scores.
        input_range: Lowest and highest value of the images, as the model takes them.
        answers: Numbers of images, `[output, class]`; `None` if images don't have one of several classes.
    """

    scores: Mapping[str, float]
    input_range: tuple[float, float]
    answers: np.ndarray | None


def score_training(teacher: keras.Model, data: TrainingData) -> OnTraining:
    """Runs the model on training images, once for everything that is to be known of them.

    Args:
        teacher: The model, which ends in logits.
        data: Its data.
    """
    objective, bounds = data.objective, []
    table = new_table(objective)

    def see(images: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> None:
        bounds.append((float(tf.reduce_min(images)), float(tf.reduce_max(images))))
        if table is not None:
            count_answers(logits.numpy(), objective.split(labels)[0].numpy(), table)

    scores = evaluate(teacher, data.calibration(**images_to_compare(data)), objective, see)
    lowest, highest = zip(*bounds, strict=True)
    return OnTraining(scores, (min(lowest), max(highest)), table)


def check_alike(found: OnTraining, validated: Mapping[str, Any], data: TrainingData) -> None:
    """Checks that the model also works on the training images; if not, they are prepared in a different way.

    Raises:
        UserError: It doesn't.
    """
    objective = data.objective
    trained, wanted = (scores[objective.metric] for scores in (found.scores, validated))
    if (
        trained < wanted / 2
        if objective.higher_is_better
        else trained > 2 * wanted and objective.is_near(trained, data.chance)
    ):
        raise UserError(
            f"`train` must be prepared like `validation`. Received: the model's {_in_words(data)} is {trained:.3f} on "
            f"`train` and {wanted:.3f} on `validation`. Check that both are scaled and labelled in the same way."
        )


def _in_words(data: TrainingData) -> str:
    return data.objective.metric.replace("_", " ")
