"""What the files of a student hold beside the network, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import keras

from tas_tf.data.form import Form
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.training_data import TrainingData
from tas_tf.deploy.file_contents import described_outputs
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.tflite import file_size
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.objective import Objective
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


def describe_contents(space: SearchSpace, shape: Shape, objective: Objective | None, labels: Sequence[str]) -> Metadata:
    """Metadata for files of the student of a shape.

    Args:
        space: Search space of the network.
        shape: The shape.
        objective: What the network is for; without it, a classification.
        labels: Names of the classes, labels or values; empty for several outputs.
    """
    graph, form = space.graph, Form.of(space.graph)
    outputs = described_outputs(graph, objective, {})
    return Metadata(
        network=graph.network,
        labels=() if outputs else labels,
        input_shape=form.shapes[form.image],
        preprocessing=Preprocessing("none"),
        inside=False,
        probabilities=graph.gives_probabilities,
        shape=shape.to_json(),
        task=Classification.task if objective is None else objective.task,
        inputs=form.several,
        outputs=outputs,
    )


def measure_file(space: SearchSpace, data: TrainingData) -> Callable[[keras.Model], int]:
    """Returns what measures the files of students: float32 `.tflite` files with their metadata.

    The metadata holds the unpruned shape instead of the student's, since no other shape has more digits.

    Args:
        space: Search space of the model.
        data: The model's data, which knows the names of the classes.
    """
    return partial(file_size, metadata=describe_contents(space, Shape.full(space), data.objective, data.class_names))
