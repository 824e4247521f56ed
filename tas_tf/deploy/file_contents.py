"""What the files of a run carry, and what they weigh with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tas_tf.data.task import Task
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import file_size
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


def file_metadata(model: keras.Model, task: Task, shape: Mapping[str, Any] | None, *, inside: bool = False) -> Metadata:
    """Describes a classifier for those who run it.

    Args:
        model: The classifier.
        task: What it was trained on.
        shape: Its shape as `shape.json` has it, if it was searched.
        inside: Whether preprocessing is put inside.
    """
    graph = Graph.from_model(model)
    return Metadata(
        network=graph.network,
        labels=task.source.class_names,
        input_shape=tuple(task.source.image_shape),
        preprocessing=task.preprocessing,
        inside=inside,
        probabilities=graph.head is not None,
        shape=shape,
    )


def layers_inside(task: Task, *, inside: bool = True) -> list[keras.Layer]:
    """Layers that put preprocessing before a network: at least one, so that it takes pixels as uint8.

    Args:
        task: What the network was trained on.
        inside: Whether there are to be any.
    """
    if not inside:
        return []
    return task.preprocessing.layers() or [keras.layers.Rescaling(1.0, dtype="float32", name="preprocessing")]


def measure_file(student: keras.Model, space: SearchSpace, task: Task, *, inside: bool = False) -> int:
    """Bytes of the float32 `.tflite` that a student of the space becomes, with all that it carries.

    The unpruned shape stands for the student's: no other takes more digits.

    Args:
        student: The network.
        space: What it was made from.
        task: What it was trained on.
        inside: Whether preprocessing is put inside.
    """
    return file_size(
        student,
        preprocessing_layers=layers_inside(task, inside=inside),
        metadata=file_metadata(student, task, Shape.full(space).to_json(), inside=inside),
    )
