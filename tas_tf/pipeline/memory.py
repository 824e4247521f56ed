"""Estimates the memory of a step's training before the run, for the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from tas_tf.baselines.shapes import baseline_shape
from tas_tf.errors import UserError
from tas_tf.runs.workspace import Workspace
from tas_tf.searching.settings import SearchSettings
from tas_tf.searching.step import PASSES
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import build_supernet
from tas_tf.training.memory import StepMemory, estimate_step
from tas_tf.training.settings import Optimisation

#: Activations that are kept if they are rounded, in times of others: measured 1.3 (MobileNetV2) to 1.7 (ResNets).
_ROUNDED = 1.7
#: Estimates by what they depend on: several steps of a plan train networks of the same shape.
_known: dict[tuple, StepMemory] = {}


def expected_shape(workspace: Workspace, space: SearchSpace) -> Shape:
    """A shape that needs about as much memory as the student: the one given, or else that of uniform widths.

    If no uniform shape is within the budget, it is the unpruned network's, which needs more.

    Args:
        workspace: The run of the student.
        space: Search space of the unpruned network.
    """
    if workspace.config.shape:
        return workspace.load_shape(space)
    cost, limit = workspace.cost_and_limit(space)
    try:
        return baseline_shape("uniform", cost, limit=limit, tolerance=0, divisor=workspace.config.space.width_divisor)
    except UserError:
        return Shape.full(space)


def training_memory(
    workspace: Workspace, space: SearchSpace, shape: Shape, settings: Optimisation, *, taught: bool
) -> StepMemory:
    """Memory of a step that trains the network of a shape.

    Args:
        workspace: The run.
        space: Search space of the unpruned network.
        shape: Shape of the network.
        settings: Settings of the training.
        taught: Whether the unpruned network teaches it.
    """
    key = (space.graph.digest, str(shape.to_json()), taught)

    def build() -> dict[str, Any]:
        teacher = build_student(space, Shape.full(space), logits=True) if taught else None
        return {"network": build_student(space, shape, logits=True), "teacher": teacher}

    return _estimate(workspace, settings, key, build)


def fine_tuning_memory(
    workspace: Workspace, space: SearchSpace, shape: Shape, settings: Optimisation, *, taught: bool
) -> StepMemory:
    """Memory of a step that fine-tunes the network of a shape for 8 bits; see `training_memory`."""
    found = training_memory(workspace, space, shape, settings, taught=taught)
    return replace(found, activations=_ROUNDED * found.activations)


def search_memory(workspace: Workspace, space: SearchSpace, settings: SearchSettings) -> StepMemory:
    """Memory of a step of the differentiable search.

    Args:
        workspace: The run.
        space: Search space of the unpruned network.
        settings: Settings of the search.
    """
    drawn = settings.num_drawn or space.width_choices.longest
    units = tuple((unit.name, unit.candidates) for unit in space.units)
    key = (space.graph.digest, units, tuple((stage.name, stage.candidates) for stage in space.stages), drawn)
    return _estimate(
        *(workspace, settings, key),
        lambda: {"network": build_supernet(space, num_drawn=drawn).body, "passes": PASSES},
    )


def _estimate(
    workspace: Workspace, settings: Optimisation, key: tuple, build: Callable[[], dict[str, Any]]
) -> StepMemory:
    options = {
        "batch_size": settings.batch_size,
        "accumulate": settings.accumulate,
        "recompute": settings.recompute,
        "momentum": settings.momentum > 0,
        "replicas": workspace.strategy.num_replicas_in_sync,
    }
    key = (*key, *options.values(), keras.config.dtype_policy().name)
    if key not in _known:
        _known[key] = estimate_step(**build(), **options)
    return _known[key]
