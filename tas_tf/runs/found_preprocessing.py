"""Finds how images have to be prepared for a trained network, by its accuracy on training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.space.space import SearchSpace
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import check_fits, is_near_chance, logits_of

# Training images to score each kind on.
_SCORED = {"batch_size": 100, "batches": 20}
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
    accuracies = {kind: evaluate(network, task.prepared_as(kind).calibration(**_SCORED))["accuracy"] for kind in kinds}
    best, second, *_ = sorted(kinds, key=lambda kind: -accuracies[kind])
    scores = ", ".join(f"{kind} {accuracies[kind]:.3f}" for kind in sorted(kinds, key=lambda kind: -accuracies[kind]))
    if is_near_chance(accuracies[best], task):
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
