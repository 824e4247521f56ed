"""Metadata and preprocessing in the files of a run, and the size of these files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tas_tf.data.run_data import RunData
from tas_tf.deploy.metadata import Metadata, kind_of_output
from tas_tf.deploy.tflite import file_size
from tas_tf.graph.graph import Graph
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.several import Several
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


def file_metadata(
    model: keras.Model, task: RunData, shape: Mapping[str, Any] | None, *, inside: bool = False
) -> Metadata:
    """Describes a network for programs that run it.

    Args:
        model: The network.
        task: The data that it was trained on.
        shape: Content of its `shape.json`; `None` if it wasn't searched.
        inside: Whether the file contains the preprocessing.
    """
    graph, objective = Graph.from_model(model), task.objective
    outputs = described_outputs(graph, objective, task.output_classes)
    return Metadata(
        network=graph.network,
        labels=() if outputs else task.class_names,
        input_shape=task.input_shape,
        preprocessing=task.preprocessing,
        inside=inside,
        probabilities=graph.gives_probabilities,
        shape=shape,
        task=objective.task,
        inputs=task.inputs,
        outputs=outputs,
        resize=task.resize,
    )


def described_outputs(
    graph: Graph, objective: Objective | None, classes: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """What the metadata says of each of several outputs, by name; nothing of a single one.

    Args:
        graph: The network.
        objective: What the outputs mean.
        classes: Names of the classes by output, as far as they are known.
    """
    if not isinstance(objective, Several):
        return {}
    return {
        part.name: {
            "task": part.objective.task,
            "outputs": part.objective.num_outputs,
            "output": kind_of_output(part.objective.task, end.head is not None),
            **({"labels": list(classes[part.name])} if part.name in classes else {}),
        }
        for part, end in zip(objective.parts, graph.ends, strict=True)
    }


def layers_inside(task: RunData, *, inside: bool = True) -> list[keras.Layer]:
    """Returns the layers that put preprocessing before a network: at least one, so that files take uint8 pixels.

    Args:
        task: The data that the network was trained on.
        inside: Whether files contain the preprocessing; if not, there are no layers.
    """
    if not inside:
        return []
    return task.preprocessing.layers() or [keras.layers.Rescaling(1.0, dtype="float32", name="preprocessing")]


def measure_file(student: keras.Model, space: SearchSpace, task: RunData, *, inside: bool = False) -> int:
    """Returns the bytes of a student's float32 `.tflite` file, with its metadata.

    The metadata holds the unpruned shape instead of the student's, since no other shape has more digits.

    Args:
        student: The network.
        space: The search space that the student comes from.
        task: The data that the student was trained on.
        inside: Whether the file contains the preprocessing.
    """
    return file_size(
        student,
        preprocessing_layers=layers_inside(task, inside=inside),
        metadata=file_metadata(student, task, Shape.full(space).to_json(), inside=inside),
    )
