"""Finds how images have to be prepared for a trained network, by its accuracy on training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import check_fits, is_near_chance, logits_of

# Training images to score each kind on.
_SCORED = {"batch_size": 100, "batches": 20}
# How much better classes must fit in another order. Untrained networks gain less.
_REORDERED = 0.3
# With fewer images of a class, chance alone fits classes in some order.
_PER_CLASS = 20
# How much better than all others the best kind must be.
_CLEARLY = 0.03


@dataclass(frozen=True)
class FoundPreprocessing:
    """The preprocessing that a network was trained with.

    Attributes:
        kind: One of `PREPROCESSING_KINDS`.
        accuracies: Accuracy on training images by kind, 0 to 1.
    """

    kind: str
    accuracies: Mapping[str, float]


def find_preprocessing(model: keras.Model, space: SearchSpace, task: Task) -> FoundPreprocessing:
    """Scores a trained network under each kind of preprocessing and takes the best if it is clearly better.

    Args:
        model: The trained network.
        space: Search space of the network.
        task: Its data.

    Raises:
        UserError: The network doesn't fit the data; no kind is above chance; or two kinds are nearly as good.
    """
    check_fits(model, space, task)
    network = logits_of(model, space)
    colour = task.image_shape[-1] == 3
    kinds = [kind for kind in PREPROCESSING_KINDS if colour or kind not in ("torch", "caffe")]
    counts = {kind: _count(network, task.prepared_as(kind)) for kind in kinds}
    accuracies = {kind: float(np.trace(counts[kind]) / counts[kind].sum()) for kind in kinds}
    _check_order(task, counts, max(accuracies.values()))
    best, second, *_ = sorted(kinds, key=lambda kind: -accuracies[kind])
    scores = ", ".join(f"{kind} {accuracies[kind]:.3f}" for kind in sorted(kinds, key=lambda kind: -accuracies[kind]))
    if is_near_chance({"accuracy": accuracies[best]}, task):
        raise UserError(
            "`preprocess`: the network is near chance level under every preprocessing. Accuracies on training images: "
            f"{scores}; guessing gives {task.chance:.3f}. Check the order of its classes. If it was trained with a "
            "preprocessing of its own, put that into the network and give `preprocess`=none."
        )
    if accuracies[best] - accuracies[second] < _CLEARLY:
        raise UserError(
            f"`preprocess`: {best} and {second} suit the network nearly as well. Give the one it was trained with. "
            f"Accuracies on training images: {scores}."
        )
    return FoundPreprocessing(best, accuracies)


def _count(network: keras.Model, task: Task) -> np.ndarray:
    """Counts training images by output and class, `[classes, classes]`."""
    counts = np.zeros([len(task.class_names)] * 2, np.int64)

    @tf.function(reduce_retracing=True)
    def predict(images: tf.Tensor) -> tf.Tensor:
        logits = network(images, training=False)
        return tf.cast(logits[:, 0] > 0, tf.int64) if task.decides else tf.argmax(logits, axis=-1)

    for images, labels in task.calibration(**_SCORED):
        np.add.at(counts, (predict(images).numpy(), labels.numpy().reshape(-1).astype(np.int64)), 1)
    return counts


def _check_order(task: Task, counts: Mapping[str, np.ndarray], accuracy: float) -> None:
    """Checks that the outputs of a network don't fit the classes much better in another order.

    Raises:
        UserError: They do. The message says the order.
    """
    for kind, table in counts.items():
        if table.sum() < _PER_CLASS * len(table):
            continue
        outputs, classes = linear_sum_assignment(table, maximize=True)
        reordered = table[outputs, classes].sum() / table.sum()
        if reordered > accuracy + _REORDERED:
            order = ", ".join(task.class_names[number] for number in classes)
            raise UserError(
                "`dataset`: the classes are in another order than the outputs of the network. With "
                f"`preprocess`={kind}, outputs 0, 1, ... fit {order}: accuracy {reordered:.3f} on training images, as "
                f"they are {accuracy:.3f}. Name the class folders so that they sort in this order. Received: "
                f"{', '.join(task.class_names)}."
            )
