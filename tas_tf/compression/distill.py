"""Distillation on its own: trains any network on labels and on the outputs of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tas_tf.compression.defaults import Changes, check_settings, seed_of, training_settings
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Form
from tas_tf.data.sized import at_size_of
from tas_tf.data.stream import UserData
from tas_tf.data.streamed import open_data
from tas_tf.errors import UserError
from tas_tf.graph.custom import CustomObjects, admit
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import with_sizes_of
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of, loss_weights_of
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import TrainResult, inherited, logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy


def distill(
    student: keras.Model,
    teacher: keras.Model,
    train: UserData,
    validation: UserData | None = None,
    *,
    settings: TrainSettings | Changes | None = None,
    task: str | Mapping[str, str] | None = None,
    loss: Any = None,
    loss_weights: Any = None,
    augment: Augmentation | None = None,
    strategy: tf.distribute.Strategy | None = None,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> TrainResult:
    """Trains a network on labels and on the outputs of a teacher.

    Args:
        student: Functional or Sequential CNN, found by a search or not. Training starts from its weights; the
            model itself isn't changed.
        teacher: Trained network of the same images and outputs. It isn't changed.
        train: Training images and labels, as for `compress`.
        validation: Other images and labels, to score the student on after training.
        settings: Settings of the training; by default 20 epochs. A mapping changes single defaults, see `compress`.
        task: What the student is for, see `compress`.
        loss: Loss in place of the one that the student was compiled with, see `compress`.
        loss_weights: Weights of the losses of several outputs, see `compress`.
        augment: Changes to training images.
        strategy: Devices; by default all GPUs.
        custom_objects: Layer classes and functions of the models' own, see `compress`.
        unsafe_load: Also accepts Lambda layers, see `compress`.
        callbacks: Keras callbacks.
        verbose: As in Keras.

    Returns:
        `model`, the trained student, which ends in logits or softmax as `student` does, and `metrics`, with the
        student's `accuracy` and `loss` on the validation images if there are any.

    Raises:
        UserError: An argument is invalid, one of the models can't be read, the models don't fit each other or the data,
            or training diverges.

    Example:
        ```python
        trained = tas_tf.distill(student, model, train, validation)
        print(trained.metrics["accuracy"], trained.metrics["macs"])
        ```
    """
    check_settings("settings", settings, TrainSettings)
    admit(custom_objects, unsafe_load=unsafe_load)
    compiled, (student, teacher) = student, (at_size_of(train, network) for network in (student, teacher))
    spaces = [_fixed_space(network) for network in (student, teacher)]
    graph, other = (space.graph for space in spaces)
    if _interface(graph) != _interface(other):
        raise UserError(
            f"`teacher` must take and return what `student` does, {_in_words(graph)}. Received: {_in_words(other)}."
        )
    strategy = make_strategy() if strategy is None else strategy
    data = open_data(
        train,
        validation,
        form=Form.of(graph),
        objective=choose_objective(
            graph, task=task, loss=loss_of(compiled, loss), loss_weights=loss_weights_of(compiled, loss_weights)
        ),
        augment=augment,
        seed=seed_of(settings),
        divided=False,
    )
    settings = training_settings(settings, data, strategy.num_replicas_in_sync)
    with strategy.scope():
        teaching = logits_of(teacher, spaces[1])
    shape = Shape.full(spaces[0])
    trained = train_network(
        spaces[0],
        shape,
        data,
        settings,
        strategy=strategy,
        teacher=teaching,
        start=inherited(student, spaces[0], shape),
        callbacks=callbacks,
        verbose=verbose,
    )
    return replace(trained, model=with_sizes_of(trained.model, compiled))


def _fixed_space(model: keras.Model) -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(model), may_be_fixed=True)


def _interface(graph: Graph) -> tuple[list, list]:
    """Shapes of inputs and outputs, in order; with their names, if there are several."""
    form = Form.of(graph)
    inputs, outputs = list(form.shapes), [graph[end.output].shape[1:] for end in graph.ends]
    return (
        list(zip(form.inputs, inputs, strict=True)) if len(inputs) > 1 else inputs,
        list(zip(form.outputs, outputs, strict=True)) if len(outputs) > 1 else outputs,
    )


def _in_words(graph: Graph) -> str:
    def told(parts: list) -> str:
        return ", ".join(f"{one[0]} of {_size(one[1])}" if isinstance(one[0], str) else _size(one) for one in parts)

    inputs, outputs = map(told, _interface(graph))
    return f"images of {inputs} to outputs of {outputs}"


def _size(shape: tuple[int | None, ...]) -> str:
    return "x".join(map(str, shape))
