"""From a trained Keras model and a user's datasets to a smaller one, in one call and without files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.datasets import source_of_datasets
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import prepare, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.file_size import FileSize
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import (
    check_above_chance,
    check_fits,
    inherited,
    logits_of,
    network_metrics,
    train_network,
)
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy

#: Training images that the model is scored on, to see whether they are like the test's.
_COMPARED = 1000
#: Whose weights a student may start from.
STARTS = ("fresh", "teacher", "supernet")


@dataclass(frozen=True)
class Compressed:
    """What `compress` found.

    Attributes:
        student: The small network, of standard layers; ends as the model did.
        shape: What was kept of the model.
        teacher_metrics: `accuracy` on the test images, `macs`, `params` of the model.
        student_metrics: The same of the student, and more.
        search: All about the search.
    """

    student: keras.Model = field(repr=False)
    shape: Shape = field(repr=False)
    teacher_metrics: dict[str, Any]
    student_metrics: dict[str, Any]
    search: SearchResult = field(repr=False)


def compress(
    model: keras.Model,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    budget: str = "macs:0.5",
    *,
    search: SearchSettings | None = None,
    distillation: TrainSettings | None = None,
    start: str = "fresh",
    augment: Augmentation | None = None,
    axes: str = "both",
    width_divisor: int = 1,
    couple_trunk: bool | None = None,
    search_dense: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    measure: Callable[[keras.Model], int] | None = None,
    verbose: int | str = "auto",
) -> Compressed:
    """Makes a trained classifier smaller.

    Nothing is written: for steps that can be interrupted, logs and reports there are the commands.

    Args:
        model: Trained, functional or Sequential, ending in logits or softmax; it stays as it is.
        train: Batches of images as the model takes them and labels, see `source_of_datasets`; read into memory once.
        test: The same, for scores alone.
        budget: As `Budget.parse` takes it.
        search: Settings of the search; by default the paper's, for hundreds of epochs, from the model's weights.
        distillation: Settings of the student's training; by default the paper's.
        start: Whose weights the student starts from, one of `STARTS`.
        augment: Changes to training images. What is cut out of float images is a matter of their scale: black is 0.
        axes: What may shrink: `width`, `depth` or `both`.
        width_divisor: Widths are rounded to multiples of it.
        couple_trunk: See `SearchSpace.from_graph`.
        search_dense: Also searches hidden Dense layers on vectors.
        strategy: Devices; by default all GPUs.
        measure: Bytes of the file that a network becomes, such as `tas_tf.deploy.tflite.file_size`; needed for a
            budget in bytes.
        verbose: As in Keras.

    Raises:
        UserError: An argument is off, the model can't be described or is near chance on the test images, the budget
            can't be reached, or training diverges.
    """
    if start not in STARTS:
        raise UserError(f"`start` must be one of {', '.join(STARTS)}. Received: {start!r}.")
    search = SearchSettings(from_teacher=True) if search is None else search
    distillation = TrainSettings() if distillation is None else distillation
    strategy = make_strategy() if strategy is None else strategy
    wanted = Budget.parse(budget)
    if wanted.kind == "bytes" and measure is None:
        raise UserError(
            "`measure` is needed for a budget in bytes, such as `tas_tf.deploy.tflite.file_size`. Received: none."
        )
    space = SearchSpace.from_model(
        model,
        couple_trunk=couple_trunk,
        axes=axes,
        width_divisor=width_divisor,
        search_dense=search_dense,
    )
    file_size = None if measure is None else FileSize(space, measure)
    prepare(space, wanted, file_size)  # refused before anything is read
    task = _make_task(train, test, space.graph.num_classes, augment or Augmentation(), search.seed)
    check_fits(model, space, task)
    with strategy.scope():
        teacher = logits_of(model, space)
    teacher_metrics = network_metrics(space, Shape.full(space), evaluate(teacher, task.test()))
    check_above_chance(teacher_metrics["accuracy"], task)
    _check_alike(teacher, task, teacher_metrics["accuracy"])
    found = run_search(
        space, task, wanted, search, strategy=strategy, teacher=model, verbose=verbose, file_size=file_size
    )
    weights = inherited(model, space, found.shape) if start == "teacher" else None
    if start == "supernet":
        weights = build_student(space, found.shape)
        inherit_from_supernet(weights, found.supernet, space, found.shape)
    trained = train_network(
        space, found.shape, task, distillation, strategy=strategy, teacher=teacher, start=weights, verbose=verbose
    )
    return Compressed(trained.model, found.shape, teacher_metrics, trained.metrics, found)


def _check_alike(teacher: keras.Model, task: Task, tested: float) -> None:
    """Makes sure that the model knows training images as well as test images: else they are prepared otherwise."""
    chosen = np.random.default_rng(0).choice(task.indices, min(_COMPARED, len(task.indices)), replace=False)
    trained = evaluate(teacher, task.plain(np.sort(chosen)))["accuracy"]
    if trained < tested / 2:
        raise UserError(
            f"`train` must have images as `test` has them. Received: the model's accuracy is {trained:.3f} on the one "
            f"and {tested:.3f} on the other. Are both scaled alike, and labelled alike?"
        )


def _make_task(train, test, num_classes: int, augment: Augmentation, seed: int) -> Task:
    source = source_of_datasets(train, test, num_classes=num_classes)
    if augment.random_resized_crop and source.images("train").dtype != np.uint8:
        raise UserError("`augment`: random_resized_crop takes uint8 images. Received: float32 ones.")
    return Task(source, Preprocessing("none"), augment, np.arange(source.num_train), seed)
