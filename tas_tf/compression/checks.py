"""Checks that a model and its data fit, before and after anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.training.class_order import answers, better_order
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import is_near_chance

# Training images to score the model on.
_COMPARED = {"batch_size": 100, "batches": 10}


def warn_of_chance(metrics: Mapping[str, Any], data: TrainingData) -> None:
    """Warns of a student that learned nothing."""
    if is_near_chance(metrics, data):
        warnings.warn(
            f"The student is near chance level: its {_in_words(data)} on `validation` is "
            f"{metrics[data.objective.metric]:.3f}, guessing gives {data.chance:.3f}. Try more epochs, a lower "
            "learning rate (`lr` of `training`) or a higher budget.",
            stacklevel=3,
        )


def check_alike(teacher: keras.Model, data: TrainingData, validated: Mapping[str, Any]) -> None:
    """Checks that the model also works on the training images; if not, they are prepared in a different way."""
    objective = data.objective
    trained = evaluate(teacher, data.calibration(**_COMPARED), objective)
    found, wanted = (scores[objective.metric] for scores in (trained, validated))
    if (
        found < wanted / 2
        if objective.higher_is_better
        else found > 2 * wanted and objective.is_near(found, data.chance)
    ):
        raise UserError(
            f"`train` must be prepared like `validation`. Received: the model's {_in_words(data)} is {found:.3f} on "
            f"`train` and {wanted:.3f} on `validation`. Check that both are scaled and labelled in the same way."
        )


def check_order(teacher: keras.Model, data: TrainingData) -> None:
    """Checks that the outputs of the model don't fit the classes much better in another order.

    Raises:
        UserError: They do. The message says the order.
    """
    names, objective = data.class_names, data.objective
    if objective.task != Classification.task:
        return
    table = answers(teacher, data.calibration(**_COMPARED), objective, len(names))
    accuracy = table.trace() / table.sum()
    if (better := better_order(table, accuracy)) is not None:
        classes, share = better
        order = ", ".join(names[number] for number in classes)
        raise UserError(
            f"`train`: the classes are in another order than the outputs of the model, which fit {order}: accuracy "
            f"{share:.3f} on training images, as they are {accuracy:.3f}. Give labels as numbers of "
            f"the outputs; texts are sorted by name. Received: {', '.join(names)}."
        )


def _in_words(data: TrainingData) -> str:
    return data.objective.metric.replace("_", " ")
