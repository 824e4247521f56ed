"""Which networks take the images and labels of a data set."""

from __future__ import annotations

import numpy as np

from tas_tf.data.form import Form
from tas_tf.data.source import Source
from tas_tf.data.split import stratified_subset
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.objective import Objective


def takes_classes(objective: Objective | None) -> bool:
    """Whether a network takes one class for each image: a classifier, also by default, or a single decision.

    >>> takes_classes(None), takes_classes(Binary(1)), takes_classes(Classification(2, (8, 8)))
    (True, True, False)
    """
    if objective is None:
        return True
    return objective.task in (Classification.task, Binary.task) and not objective.positions


def check_takes_classes(name: str, objective: Objective | None) -> None:
    """Checks that a network takes data that has a class for each image.

    Args:
        name: Name of the data set.
        objective: What the network is for; by default classes.

    Raises:
        UserError: It doesn't.
    """
    if not takes_classes(objective):
        fitting = (
            "a folder with images/ and masks/" if objective.has_positions else "csv:FILE with a column for each output"
        )
        raise UserError(
            f"`dataset`={name} has a class for each image, which doesn't suit {objective}. Expected {fitting}, or "
            "another `task`."
        )


def check_classes(source: Source, objective: Objective | None) -> None:
    """Checks that data has as many classes as a network, if images have classes.

    Raises:
        UserError: It has another number.
    """
    if objective is not None and takes_classes(objective):
        check_class_count(objective, source.num_classes, f"`{source.name}`")


def check_class_count(objective: Objective, count: int, place: str) -> None:
    """Checks a number of classes.

    Args:
        objective: What an output that takes classes is for.
        count: Number of classes in the data.
        place: Where the classes are.

    Raises:
        UserError: The output has another number.
    """
    if objective.task == Binary.task and count != 2:
        raise UserError(
            f"`model` makes a single decision, so that `dataset` must have 2 classes. Received: {count} in {place}."
        )
    if objective.task == Classification.task and count != objective.num_outputs:
        raise UserError(f"`model` has {objective.num_outputs} classes, but {place} has {count}.")


def check_takes_images(source: Source, form: Form) -> None:
    """Checks that a network with several inputs takes images of a data set's size.

    Raises:
        UserError: It doesn't.
    """
    wanted, got = form.shapes[form.image], tuple(source.image_shape)
    if wanted != got:
        wanted, got = ("x".join(map(str, each)) for each in (wanted, got))
        raise UserError(
            f"`model` takes images of {wanted}, but those of `{source.name}` are {got}. Change `dataset`, `model`, "
            "`image_size` or `channels`."
        )


def chosen_images(source: Source, limit: int | None) -> np.ndarray:
    """The training images to use.

    Args:
        source: The data set.
        limit: How many, stratified by class if there are classes; by default all.

    Raises:
        UserError: There are fewer, or fewer than classes are asked for.
    """
    if limit is None:
        return np.arange(source.num_train)
    least, what = (source.num_classes, ", the number of classes,") if source.has_classes else (1, "")
    if not least <= limit <= source.num_train:
        raise UserError(
            f"`train_limit` must be from {least}{what} to {source.num_train}, the number of training images. "
            f"Received: {limit}."
        )
    return stratified_subset(source.strata("train"), count=limit)
