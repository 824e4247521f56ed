"""Trains and tests a network of a given shape, teacher or student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tas_tf.training.distill import compile_classifier, distiller, is_unsettled, recalibrate
from tas_tf.training.evaluation import evaluate
from tas_tf.training.loop import SECONDS, fit
from tas_tf.training.optimizers import cosine, sgd
from tas_tf.training.settings import TrainSettings

#: Batches over which running statistics are averaged if training was too short for them to settle.
_CALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    Attributes:
        model: Trained network that ends like the original, in logits or softmax.
        metrics: JSON-ready numbers: `macs`, `params` and more, with `accuracy` and `loss` if there are images to score.

    Example:
        ```python
        print(trained.metrics["accuracy"], trained.metrics["macs"])
        ```
    """

    model: keras.Model = field(repr=False)
    metrics: dict[str, Any]


def logits_of(model: keras.Model, space: SearchSpace) -> keras.Model:
    """Returns the network with the same weights, ending in logits.

    Args:
        model: Network that `space` was read from.
        space: Search space of the network.
    """
    shape = Shape.full(space)
    result = build_student(space, shape, logits=True)
    inherit_weights(result, model, space, shape)
    return result


def check_fits(model: keras.Model, space: SearchSpace, task: TrainingData) -> None:
    """Checks that a network fits the images and classes of a task.

    Raises:
        UserError: The image shapes or the numbers of classes differ.
    """
    wanted, got = task.image_shape, tuple(model.inputs[0].shape[1:])
    if wanted != got:
        raise UserError(
            f"`model` takes images of {'x'.join(map(str, got))}, but those of `{task.name}` are "
            f"{'x'.join(map(str, wanted))}. Change `dataset`, `model` or `image_size`."
        )
    if space.graph.num_classes != len(task.class_names):
        raise UserError(
            f"`model` has {space.graph.num_classes} classes, but `{task.name}` has {len(task.class_names)}."
        )


def is_near_chance(accuracy: float, task: TrainingData) -> bool:
    """Whether an accuracy is close to that of guessing the most frequent class."""
    return accuracy < task.chance + 0.1 * (1 - task.chance)


def check_above_chance(accuracy: float, task: TrainingData) -> None:
    """Rejects a teacher that has hardly learned anything.

    Raises:
        UserError: The accuracy is close to that of guessing the most frequent class.
    """
    if is_near_chance(accuracy, task):
        raise UserError(
            f"The teacher is near chance level: its accuracy is {accuracy:.3f}, guessing gives {task.chance:.3f}. "
            "Train it longer, check the order of its classes, or prepare the images as it was trained with them."
        )


def train_network(
    space: SearchSpace,
    shape: Shape,
    task: TrainingData,
    settings: TrainSettings,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    start: keras.Model | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_dir: str | Path | None = None,
    verbose: int | str = "auto",
    scored_on: tf.data.Dataset | None = None,
    first_epoch: int = 0,
    steps: int | None = None,
) -> TrainResult:
    """Trains the network of a shape; resumes where an earlier call with the same folder stopped.

    If training was too short for the momentum of batch normalisation, running statistics are recomputed over training
    images at the end.

    Args:
        space: Search space of the unpruned network.
        shape: Widths and depths to keep.
        task: Training images, and test images that are used once.
        settings: Settings of the training.
        strategy: Distribution strategy.
        teacher: Network ending in logits, made in the strategy's scope, to learn from in addition to the labels.
        start: Network of this shape that provides the initial weights; by default, they are random.
        callbacks: Keras callbacks.
        checkpoint_dir: Folder to save to after each epoch.
        verbose: As in Keras.
        scored_on: Images to score instead of the test images.
        first_epoch: Epoch of the data to start with, which determines order and augmentation.
        steps: Steps of the training, instead of the epochs in `settings`.

    Raises:
        UserError: The batch doesn't fit the data, training diverges, or `checkpoint_dir` belongs to another network.
    """
    dataset, per_epoch = task.training(settings.batch_size)
    epochs, warmup = (settings.all_epochs, settings.warmup_epochs) if steps is None else (1, 0)
    per_epoch = per_epoch if steps is None else steps
    rate = cosine(settings.lr, epochs=epochs, steps_per_epoch=per_epoch, warmup_epochs=warmup)
    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        network = build_student(space, shape, logits=True)
        if start is not None:
            network.set_weights(start.get_weights())
        optimizer = sgd(rate, momentum=settings.momentum, l2=settings.l2)
        if teacher is None:
            learner = compile_classifier(network, optimizer)
        else:
            weights = {name: getattr(settings, name) for name in ("alpha", "alpha_end", "temperature")}
            learner = distiller(network, teacher, optimizer, steps=epochs * per_epoch, **weights)
    history = fit(
        learner,
        lambda done: dataset(first_epoch + done),
        strategy=strategy,
        epochs=epochs,
        steps_per_epoch=per_epoch,
        callbacks=callbacks,
        checkpoint_dir=checkpoint_dir,
        verbose=verbose,
    )
    unsettled = is_unsettled(network, epochs * per_epoch)
    if unsettled:
        recalibrate(network, task.calibration(min(settings.batch_size, 128), _CALIBRATION_BATCHES))
    scored_on = task.test() if scored_on is None else scored_on
    scores = {} if scored_on is None else evaluate(network, scored_on)
    metrics = {
        **network_metrics(space, shape, scores),
        "train_accuracy": history.history["accuracy"][-1],
        "epochs": epochs,
        "seed": settings.seed,
        "kd": teacher is not None,
        "recalibrated": unsettled,
        "seconds": round(sum(history.history[SECONDS]), 1),
    }
    return TrainResult(_finished(network, space, shape), metrics)


def inherited(teacher: keras.Model, space: SearchSpace, shape: Shape) -> keras.Model:
    """Builds the network of a shape with weights copied from the unpruned network.

    Args:
        teacher: The unpruned network.
        space: Search space of the unpruned network.
        shape: Widths and depths to keep.

    Raises:
        UserError: The shape is wider than the network.
    """
    student = build_student(space, shape)
    inherit_weights(student, teacher, space, shape)
    return student


def network_metrics(space: SearchSpace, shape: Shape, scores: dict[str, float]) -> dict[str, Any]:
    """Returns the metrics of every network in a report: test scores, MACs and parameters."""
    costs = {kind: CostModel(space, kind)(shape) for kind in ("macs", "params")}
    return {**scores, **costs}


def _finished(network: keras.Model, space: SearchSpace, shape: Shape) -> keras.Model:
    """Copies the weights into a new, uncompiled model that ends like the original."""
    model = build_student(space, shape)
    model.set_weights(network.get_weights())
    return model
