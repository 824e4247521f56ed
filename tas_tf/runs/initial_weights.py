"""The weights that a run's student starts from."""

from __future__ import annotations

from pathlib import Path

import keras

from tas_tf.errors import UserError
from tas_tf.runs.config import RunConfig
from tas_tf.runs.workspace import Workspace
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.training.network import inherited
from tas_tf.zoo.loading import load_file


def find_initial_weights(config: RunConfig) -> tuple[str, Path | None]:
    """Decides which weights the student starts from.

    Returns:
        `fresh`; `teacher`, for the teacher's most important filters; or `filters` or `supernet` with the file of a
        network that has the student's shape.

    Raises:
        UserError: `inherit` is `supernet` and there is no such file beside the shape.
    """
    filtered, searched = (
        config.shape_path.with_name(path.name) for path in (config.run.filtered_teacher, config.run.supernet_student)
    )
    if config.inherit == "none":
        return "fresh", None
    if config.inherit == "supernet":
        if not searched.exists():
            raise UserError(
                f"`inherit`: there is no {searched}. Expected a shape that the search found, with the weights that it "
                "saved beside it. Run `search` first, or give another `inherit`."
            )
        return "supernet", searched
    if filtered.exists():
        return "filters", filtered
    return ("teacher" if config.inherit == "teacher" else "fresh"), None


def load_initial_network(
    workspace: Workspace, teacher: keras.Model, space: SearchSpace, shape: Shape
) -> keras.Model | None:
    """Loads or makes the network whose weights the student starts from; `None` for fresh weights.

    Args:
        workspace: The run.
        teacher: The teacher.
        space: The search space of the teacher.
        shape: The shape of the student.

    Raises:
        UserError: The network has another shape.
    """
    source, path = find_initial_weights(workspace.config)
    if path is None:
        return inherited(workspace.ranked(teacher, space), space, shape) if source == "teacher" else None
    start = load_file(path)
    expected = build_student(space, shape)
    if [weight.shape for weight in start.weights] != [weight.shape for weight in expected.weights]:
        raise UserError(
            f"`inherit`: {path} isn't a network of the shape in {workspace.config.shape_path}. Make the shape again "
            "with the command that made it, or give `inherit`=none."
        )
    return start
