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
from trainers import options


def file_metadata(model: keras.Model, task: Task, shape: Mapping[str, Any] | None) -> Metadata:
    """Describes a classifier for those who run it.

    Args:
        model: The classifier.
        task: What it was trained on.
        shape: Its shape as `shape.json` has it, if it was searched.
    """
    graph = Graph.from_model(model)
    return Metadata(
        network=graph.network,
        labels=task.source.class_names,
        input_shape=tuple(task.source.image_shape),
        preprocessing=task.preprocessing,
        inside=options.PREPROCESSING_INSIDE.value,
        probabilities=graph.head is not None,
        shape=shape,
    )


def layers_inside(task: Task) -> list[keras.Layer]:
    """Layers that `--preprocessing_inside` puts before a network: one at least, so that it takes pixels as uint8."""
    if not options.PREPROCESSING_INSIDE.value:
        return []
    return task.preprocessing.layers() or [keras.layers.Rescaling(1.0, dtype="float32", name="preprocessing")]


def measure_file(student: keras.Model, space: SearchSpace, task: Task) -> int:
    """Bytes of the float32 `.tflite` that a student of the space becomes, with all that it carries.

    The unpruned shape stands for the student's: no other takes more digits.
    """
    return file_size(
        student,
        preprocessing_layers=layers_inside(task),
        metadata=file_metadata(student, task, Shape.full(space).to_json()),
    )
