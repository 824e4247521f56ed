"""What the files of a student hold beside the network, and how large they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.training_data import TrainingData
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import file_size
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


def describe_contents(space: SearchSpace, shape: Shape, data: TrainingData) -> Metadata:
    """Metadata for files of the student of a shape."""
    return Metadata(
        network=space.graph.network,
        labels=data.class_names,
        input_shape=data.image_shape,
        preprocessing=Preprocessing("none"),
        inside=False,
        probabilities=space.graph.head is not None,
        shape=shape.to_json(),
        task=data.objective.task,
    )


def measure_file(space: SearchSpace, data: TrainingData) -> Callable[[keras.Model], int]:
    """Returns what measures the files of students: float32 `.tflite` files with their metadata.

    The metadata holds the unpruned shape instead of the student's, since no other shape has more digits.

    Args:
        space: Search space of the model.
        data: The model's data, which knows the names of the classes.
    """
    return partial(file_size, metadata=describe_contents(space, Shape.full(space), data))
