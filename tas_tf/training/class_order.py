"""Finds out whether the outputs of a trained network fit the classes of data better in another order.

What is asked is whether labels were numbered in another way than in training. A network that is merely bad, was given
wrongly scaled images or always says the same also has classes whose images mostly go to another output. Three things
tell them apart: classes change places in closed circles, an output gets images of one class rather than of many, and
nearly all classes, those that stay as well, are then told apart.

Limits: classes that change places need at least about 16 recognised images between them. A network that tells fewer
than about three quarters of its classes apart isn't judged. With five images per class, as for 1,000 classes, an order
that is found may be wrong for a few of them. For two classes, a network that takes each for the other, say because
images are inverted, looks the same as labels that are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.objective import Objective

# Images to compare outputs with classes on: for each class, but within bounds, as the network has to see them all.
_PER_CLASS, _FEWEST, _MOST = 20, 2000, 5000
_BATCH = 100
# How many times as often as any other output a class must get its own, and an output its class.
_TIMES = 2.0
# By how many standard errors the classes of a circle must rather get each other's outputs than their own. Any pair of
# many classes may look exchanged by chance.
_ERRORS = 4.0
# One in so many classes of a circle may be unclear, and one in so many of all classes.
_UNCLEAR_OF_CIRCLE, _UNCLEAR_OF_ALL = 5, 4
# How far the share of recognised images, averaged over classes, must be above that of a constant answer.
_ABOVE_CONSTANT = 0.3
# So few classes may also seem to be exchanged because images are prepared wrongly.
_DOUBTFUL = 4
# Longer orders are told by what is moved, and by the first few only.
_LISTED, _FIRST = 30, 10


@dataclass(frozen=True)
class BetterOrder:
    """An order of classes that the outputs of a network fit clearly better than the given one.

    Attributes:
        classes: The class that fits each output.
        accuracy: Share of images that are right in this order.
        given: Share of images that are right in the given order.
        recall: Like `accuracy`, but averaged over classes, however many images they have.
    """

    classes: list[int]
    accuracy: float
    given: float
    recall: float


def better_order(table: np.ndarray) -> BetterOrder | None:
    """The order of classes that a network's outputs fit clearly better than the given one.

    Args:
        table: Numbers of images, `[output, class]`; each image must count once.

    Returns:
        The order; `None` if no other one is clearly better, or if there are too few images to tell.

    Example:
        >>> better_order(np.array([[0, 30], [40, 0]])).classes
        [1, 0]
        >>> better_order(np.array([[30, 10], [10, 30]])) is None
        True
    """
    counts = table.sum(0)
    there = counts > 0
    shares = table / np.maximum(counts, 1)  # so that frequent classes weigh as much as rare ones
    _, outputs = linear_sum_assignment(shares.T, maximize=True)
    clear = _clear(shares, outputs) & there
    place = np.arange(len(table))
    for circle in _circles(outputs):
        if _is_exchanged(shares, counts, outputs, circle) and _few(~clear[circle], _UNCLEAR_OF_CIRCLE):
            place[circle] = outputs[circle]
    if (place == np.arange(len(table))).all() or not _few(~_clear(shares, place)[there], _UNCLEAR_OF_ALL):
        return None
    recall = _recall(shares, place, there)
    right, given = (
        float(table[at, np.arange(len(table))].sum() / table.sum()) for at in (place, np.arange(len(table)))
    )
    if recall < 1 / np.count_nonzero(there) + _ABOVE_CONSTANT or right <= given:
        return None
    return BetterOrder(np.argsort(place).tolist(), right, given, recall)


def given_recall(table: np.ndarray) -> float:
    """Share of images that are right in the given order, averaged over classes, of a table as in `better_order`."""
    counts = table.sum(0)
    return _recall(table / np.maximum(counts, 1), np.arange(len(table)), counts > 0)


def _recall(shares: np.ndarray, place: np.ndarray, there: np.ndarray) -> float:
    return float(shares[place, np.arange(len(place))][there].mean())


def _clear(shares: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Whether each class and the output at its place belong to each other rather than to any other, `[classes]`."""
    numbers = np.arange(len(place))
    own = shares[place, numbers]
    others = shares.copy()
    others[place, numbers] = 0
    return (own > 0) & (own >= _TIMES * others.max(0)) & (own >= _TIMES * others.max(1)[place])


def _circles(outputs: np.ndarray) -> Iterator[list[int]]:
    """Groups of classes, each of which has the output that another one of its group would have in the given order."""
    left = {number for number, output in enumerate(outputs) if number != output}
    while left:
        circle = [min(left)]
        while (following := int(outputs[circle[-1]])) != circle[0]:
            circle.append(following)
        left -= set(circle)
        yield circle


def _is_exchanged(shares: np.ndarray, counts: np.ndarray, outputs: np.ndarray, circle: Sequence[int]) -> bool:
    """Whether images of a circle's classes rather go to each other's outputs than to their own, beyond chance."""
    known = np.array([number for number in circle if counts[number]])
    if not len(known):
        return False
    moved, stayed = shares[outputs[known], known], shares[known, known]
    error = math.sqrt(((moved + stayed) / counts[known]).sum())
    return float((moved - stayed).sum()) >= _ERRORS * error > 0


def _few(unclear: np.ndarray, one_in: int) -> bool:
    return int(unclear.sum()) <= len(unclear) // one_in


def num_classes(objective: Objective) -> int | None:
    """Number of classes, of which each image has one; `None` if images have anything else."""
    if objective.has_positions or objective.task not in (Classification.task, Binary.task):
        return None
    return objective.num_outputs if objective.task == Classification.task else 2


def images_to_compare(data: TrainingData) -> dict[str, int]:
    """Arguments of `calibration` for training images to compare outputs with classes on, each of them once."""
    wanted = min(max(_PER_CLASS * (num_classes(data.objective) or 1), _FEWEST), _MOST, data.num_train)
    batches = math.ceil(wanted / _BATCH)
    return {"batch_size": wanted // batches, "batches": batches}


def new_table(objective: Objective) -> np.ndarray | None:
    """A table of outputs and classes to add to, see `count_answers`; `None` if images don't have one of several."""
    count = num_classes(objective)
    return None if count is None else np.zeros([count, count], np.int64)


def count_answers(logits: np.ndarray, labels: np.ndarray, table: np.ndarray) -> None:
    """Adds a batch to a table of outputs and classes.

    Args:
        logits: Outputs, `[batch, classes]`, or `[batch, 1]` for a decision.
        labels: True classes, `[batch]`.
        table: Numbers of images so far, `[output, class]`, to add to.
    """
    said = logits.argmax(-1) if logits.shape[-1] > 1 else logits[:, 0] > 0
    np.add.at(table, (said.astype(np.int64), np.asarray(labels).reshape(-1).astype(np.int64)), 1)


def answers(network: keras.Model, data: TrainingData) -> np.ndarray | None:
    """Numbers of training images by output and class, `[output, class]`; `None` without classes, see `num_classes`.

    Args:
        network: Network that ends in logits.
        data: Its data.
    """
    table = new_table(data.objective)
    if table is not None:
        answer = tf.function(lambda images: network(images, training=False), reduce_retracing=True)
        for images, labels in data.calibration(**images_to_compare(data)):
            count_answers(answer(images).numpy(), data.objective.split(labels)[0].numpy(), table)
    return table


def check_order(table: np.ndarray | None, names: Sequence[str], *, argument: str, remedy: str) -> None:
    """Checks that the outputs of a network don't fit the classes clearly better in another order.

    Args:
        table: Numbers of images, see `answers`; nothing is checked without.
        names: Names of the classes.
        argument: Argument that gives the data.
        remedy: Sentence that says how to give the classes another order.

    Raises:
        UserError: They do. The message says the order.
    """
    if table is not None and (better := better_order(table)) is not None:
        raise in_another_order(better, names, argument=argument, remedy=remedy)


def in_another_order(
    better: BetterOrder, names: Sequence[str], *, argument: str, remedy: str, under: str = ""
) -> UserError:
    """The error for classes in another order than a network's outputs.

    Args:
        better: The order that fits.
        names: Names of the classes.
        argument: See `check_order`.
        remedy: See `check_order`.
        under: What it was found under, if there was a choice.
    """
    classes = better.classes
    doubt = (
        " If the labels are right, images are prepared in another way than in training."
        if len(classes) <= _DOUBTFUL
        else ""
    )
    names = names if len(names) == len(classes) else list(map(str, range(len(classes))))  # a decision has one name
    what = "classes are in another order"
    if len(classes) == 2:
        what, outputs, order = "two classes are the other way round", "outputs 0 and 1", f"{names[1]} and {names[0]}"
        received = f" Received: {', '.join(names)}."
    elif len(classes) <= _LISTED:
        outputs, order = "outputs 0, 1, ...", ", ".join(names[number] for number in classes)
        received = f" Received: {', '.join(names)}."
    else:
        moved = [(output, number) for output, number in enumerate(classes) if output != number]
        outputs = f"outputs {', '.join(str(output) for output, _ in moved[:_FIRST])}"
        order = ", ".join(names[number] for _, number in moved[:_FIRST])
        order += f", and {len(moved) - _FIRST} more outputs fit others" if len(moved) > _FIRST else ""
        received = f" Received: {', '.join(names[output] for output, _ in moved[:_FIRST])} at these places."
    found = f"With {under}, {outputs}" if under else outputs.capitalize()
    return UserError(
        f"`{argument}`: the {what} than the outputs of the network. {found} fit {order}: "
        f"accuracy {better.accuracy:.3f} on training images, as they are {better.given:.3f}. {remedy}{doubt}{received}"
    )
