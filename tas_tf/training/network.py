"""Trains and tests a network of a given shape, teacher or student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.training_data import EpochsDataset, TrainingData
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, copy_weights, inherit_weights
from tas_tf.training.answers import Answers, Turns, kept_views
from tas_tf.training.checkpoint import Saving
from tas_tf.training.distill import Recalibration, compile_network, distiller, is_unsettled
from tas_tf.training.evaluation import Evaluator, make_evaluator
from tas_tf.training.loop import SECONDS, Steps, fit
from tas_tf.training.memory import warn_of_shortage
from tas_tf.training.optimizers import Course, sgd
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import check_batch_size

#: Batches over which running statistics are averaged if training was too short for them to settle.
_CALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    Attributes:
        model: Trained network that ends like the original, in logits or softmax.
        metrics: JSON-ready numbers: `macs`, `params` and more; if there are images to score, also `loss` and scores
            such as `accuracy`, with the name of the one that counts as `metric`.

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
    wanted, got = tuple(task.image_shape), tuple(space.graph.input.shape[1:])
    if wanted != got:
        raise UserError(
            f"`model` takes images of {'x'.join(map(str, got))}, but those of `{task.name}` are "
            f"{'x'.join(map(str, wanted))}. Change `dataset`, `model` or `image_size`."
        )
    if space.graph.num_classes != task.objective.num_outputs:
        raise UserError(
            f"`model` has {space.graph.num_classes} classes, but `{task.name}` has {task.objective.num_outputs}."
        )


def is_near_chance(metrics: Mapping[str, Any], task: TrainingData) -> bool:
    """Whether a network scores hardly better than the best constant output, such as the most frequent class."""
    return task.objective.is_near(metrics[task.objective.metric], task.chance)


def check_above_chance(metrics: Mapping[str, Any], task: TrainingData) -> None:
    """Rejects a teacher that has hardly learned anything.

    Raises:
        UserError: Its score is close to that of the best constant output.
    """
    if is_near_chance(metrics, task):
        name = task.objective.metric.replace("_", " ")
        raise UserError(
            f"The teacher is near chance level: its {name} is {task.objective.told_apart(metrics)}, guessing gives "
            f"{task.chance:.3f}. Train it longer, check the order of its classes, or prepare the images as it was "
            "trained with them."
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
    saving: Saving | None = None,
    verbose: int | str = "auto",
    scored_on: tf.data.Dataset | None = None,
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
        saving: Where to save to and to resume from.
        verbose: As in Keras.
        scored_on: Images to score instead of the test images.
        steps: Steps of the training, instead of the epochs in `settings`.

    Raises:
        UserError: The batch doesn't fit the data, training diverges, or the checkpoint belongs to another network.
    """
    dataset, per_epoch = task.training(settings.batch_size)
    epochs, warmup = (settings.all_epochs, settings.warmup_epochs) if steps is None else (1, 0)
    per_epoch = per_epoch if steps is None else steps
    if teacher is not None and 0 < (views := kept_views(task, settings)) < epochs:
        dataset = Turns(dataset, Answers(teacher, strategy), steps_per_epoch=per_epoch, views=views)
    trainee = Trainee(space, shape, settings, task.objective, strategy=strategy, teacher=teacher)
    if start is not None:
        copy_weights(start, trainee.network)
    history = trainee.train(
        dataset,
        lr=settings.lr,
        epochs=epochs,
        steps_per_epoch=per_epoch,
        warmup_epochs=warmup,
        callbacks=callbacks,
        saving=saving,
        verbose=verbose,
    )
    scored_on = task.test() if scored_on is None else scored_on

    def finish() -> tuple[bool, dict[str, float]]:
        recalibrated = trainee.settle(task)
        return recalibrated, {} if scored_on is None else trainee.score(scored_on)

    recalibrated, scores = workers.once(finish)
    workers.share(trainee.network.non_trainable_variables)
    progress = task.objective.progress_name
    metrics = {
        **network_metrics(space, shape, scores, task),
        f"train_{progress}": history.history[progress][-1],
        "epochs": epochs,
        "seed": settings.seed,
        "kd": teacher is not None,
        "recalibrated": recalibrated,
        "seconds": round(sum(history.history[SECONDS]), 1),
    }
    return TrainResult(trainee.finished(), metrics)


class Trainee:
    """The network of a shape with all that its training needs; it can be trained again and again, and is traced once.

    Args:
        space: Search space of the unpruned network.
        shape: Widths and depths to keep.
        settings: Settings of the training; epochs and learning rate are given to `train`.
        objective: What the outputs mean.
        strategy: Distribution strategy.
        teacher: Network ending in logits, made in the strategy's scope, to learn from in addition to the labels.

    Attributes:
        network: The network, which ends in logits. Its initial weights are random.
    """

    def __init__(
        self,
        space: SearchSpace,
        shape: Shape,
        settings: TrainSettings,
        objective: Objective,
        *,
        strategy: tf.distribute.Strategy,
        teacher: keras.Model | None = None,
    ) -> None:
        self._objective = objective
        self._space, self._shape, self._settings, self._strategy = space, shape, settings, strategy
        check_batch_size(strategy, settings.batch_size, settings.accumulate)
        keras.utils.set_random_seed(settings.seed)
        with strategy.scope():
            self.network = build_student(space, shape, logits=True)
            self._course = Course()
            optimizer = sgd(self._course.schedule, momentum=settings.momentum, l2=settings.l2)
            if teacher is None and settings.accumulate == 1 and not settings.recompute:
                self._learner = compile_network(self.network, optimizer, objective)
                optimizer.build(self.network.trainable_variables)
            else:
                weights = {name: getattr(settings, name) for name in ("alpha", "alpha_end", "temperature")}
                options = {"objective": objective, "steps": self._course.steps, **weights}
                options |= {"parts": settings.accumulate, "recompute": settings.recompute}
                self._learner = distiller(self.network, teacher, optimizer, **options)
        memory = {"accumulate": settings.accumulate, "recompute": settings.recompute, "momentum": settings.momentum > 0}
        replicas = strategy.num_replicas_in_sync
        warn_of_shortage(self.network, settings.batch_size, teacher=teacher, replicas=replicas, **memory)
        self._steps = Steps(self._learner, strategy)
        # What a training changes besides weights: random states of layers, and the optimizer's variables.
        known = {id(weight) for weight in self.network.weights}
        states = [one for one in self.network.variables if id(one) not in known] + optimizer.variables
        self._fresh = [(state, state.numpy()) for state in states]
        self._trained_steps = 0

    def train(
        self,
        dataset: EpochsDataset,
        *,
        lr: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        saving: Saving | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains the network from its present weights, with a new optimizer.

        Args:
            dataset: As in `fit`.
            lr: Highest learning rate.
            epochs: Number of epochs, including the warm-up.
            steps_per_epoch: Batches in an epoch.
            warmup_epochs: Epochs in which the rate rises to `lr`.
            callbacks: Keras callbacks.
            saving: Where to save to and to resume from.
            verbose: As in Keras.

        Raises:
            UserError: Training diverges, or the checkpoint belongs to another network.
        """
        for state, value in self._fresh:
            state.assign(value)
        steps = epochs * steps_per_epoch
        self._course.plan(lr, steps=steps, warmup_steps=warmup_epochs * steps_per_epoch)
        history = fit(
            self._learner,
            dataset,
            strategy=self._strategy,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=callbacks,
            saving=saving,
            verbose=verbose,
            steps=self._steps,
        )
        self._trained_steps = steps
        return history

    def settle(self, task: TrainingData) -> bool:
        """Recomputes running statistics over training images if the last training was too short for their momentum.

        Args:
            task: Training images.

        Returns:
            Whether it was too short.
        """
        unsettled = is_unsettled(self.network, self._trained_steps)
        if unsettled:
            self._recalibration(task.calibration(min(self._settings.batch_size, 128), _CALIBRATION_BATCHES))
        return unsettled

    def score(self, images: tf.data.Dataset) -> dict[str, float]:
        """Scores and loss on a finite dataset."""
        return self._evaluator(images)

    def finished(self) -> keras.Model:
        """Copies the weights into a new, uncompiled model that ends like the original."""
        return copy_weights(self.network, build_student(self._space, self._shape))

    @cached_property
    def _recalibration(self) -> Recalibration:
        return Recalibration(self.network)

    @cached_property
    def _evaluator(self) -> Evaluator:
        return make_evaluator(self.network, self._objective)


def inherited(teacher: keras.Model, space: SearchSpace, shape: Shape, *, logits: bool = False) -> keras.Model:
    """Builds the network of a shape with weights copied from the unpruned network.

    Args:
        teacher: The unpruned network.
        space: Search space of the unpruned network.
        shape: Widths and depths to keep.
        logits: See `build_student`.

    Raises:
        UserError: The shape is wider than the network.
    """
    student = build_student(space, shape, logits=logits)
    inherit_weights(student, teacher, space, shape)
    return student


def network_metrics(space: SearchSpace, shape: Shape, scores: Mapping[str, Any], task: TrainingData) -> dict[str, Any]:
    """Returns the metrics of every network in a report: test scores, which of them counts, MACs and parameters.

    Scores of classes get the names of the classes.
    """
    costs = {kind: CostModel(space, kind)(shape) for kind in ("macs", "params")}
    classes = {"by_class": task.class_names, **{f"{name}_by_class": each for name, each in task.output_classes.items()}}
    named = {key: _named(value, classes.get(key, ())) for key, value in scores.items() if key.endswith("by_class")}
    return {**scores, **named, "task": task.objective.task, "metric": task.objective.metric, **costs}


def _named(scores: Sequence[float | None], names: Sequence[str]) -> dict[str, float | None]:
    """Scores of classes by name, or by number if there are other names."""
    return dict(zip(names if len(names) == len(scores) else map(str, range(len(scores))), scores, strict=True))
