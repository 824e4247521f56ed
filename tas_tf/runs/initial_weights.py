"""The weights that a run's student starts from."""

from __future__ import annotations

from pathlib import Path

import keras

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.runs.config import RunConfig
from tas_tf.runs.records import read_result
from tas_tf.runs.workspace import Workspace
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.training.network import inherited

_FOUND_BY = {"race": "race", "supernet": "differentiable search"}


def find_initial_weights(config: RunConfig) -> tuple[str, Path | None]:
    """Decides which weights the student starts from.

    Returns:
        `fresh`; `teacher`, for the teacher's most important filters; or `filters`, `race` or `supernet` with the file
        of a network that has the student's shape.

    Raises:
        UserError: `inherit` is `race` or `supernet`, and there is no such file beside the shape.
    """

    def beside(path: Path) -> Path:
        return config.shape_path.with_name(path.name)

    saved = {"race": beside(config.run.raced_student), "supernet": beside(config.run.supernet_student)}
    filtered = beside(config.run.filtered_teacher)
    if config.inherit == "none":
        return "fresh", None
    if config.inherit in saved:
        path = saved[config.inherit]
        if not path.exists():
            raise UserError(
                f"`inherit`: there is no {path}. Expected a shape that a {_FOUND_BY[config.inherit]} found, with the "
                "weights that it saved beside it. Run `search` first, or give another `inherit`."
            )
        return config.inherit, path
    if filtered.exists():
        return "filters", filtered
    if config.inherit == "auto" and config.races and saved["race"].exists():
        return "race", saved["race"]
    return ("teacher" if config.inherit == "teacher" or config.races else "fresh"), None


def raced_rate_factor(config: RunConfig) -> float:
    """Factor of the student's learning rate that did best in the race; 1 if there was none.

    The rivals of a run use the factor of that run, so that all students are trained alike.
    """
    if not config.races:
        return 1.0
    runs = [
        config.shape_path.with_name("metrics.json"),
        *([config.parent.run.metrics("search")] if config.parent else []),
    ]
    found = [read_result(path).get("rate_factor") for path in runs if path.exists()]
    return next((factor for factor in found if factor is not None), 1.0)


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
    source, path = workers.once(lambda: find_initial_weights(workspace.config))
    if path is None:
        return inherited(workspace.ranked(teacher, space), space, shape) if source == "teacher" else None
    start = workspace.load(path)
    expected = build_student(space, shape)
    if [weight.shape for weight in start.weights] != [weight.shape for weight in expected.weights]:
        raise UserError(
            f"`inherit`: {path} isn't a network of the shape in {workspace.config.shape_path}. Make the shape again "
            "with the command that made it, or give `inherit`=none."
        )
    return start
