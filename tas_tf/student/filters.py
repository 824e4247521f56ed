"""Ranks the filters of a trained network, for baselines that keep the most important ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from tas_tf.errors import UserError
from tas_tf.graph.layers import original_layer
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import named_weights


def _l1_norms(filters: np.ndarray) -> np.ndarray:
    return np.abs(filters).sum(1)


def _distances(filters: np.ndarray) -> np.ndarray:
    """Sums of Euclidean distances to all other filters; smallest near the geometric median."""
    squares = (filters**2).sum(1)
    # Rounding may make the squared distance of nearly equal filters negative.
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * filters @ filters.T, 0)).sum(1)


#: Functions that score the filters of a layer, given as rows. Higher scores are more important.
_SCORES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"l1": _l1_norms, "fpgm": _distances}
CRITERIA = tuple(_SCORES)


def kept_filters(criterion: str, teacher: keras.Model, space: SearchSpace, shape: Shape) -> dict[str, np.ndarray]:
    """Selects the filters of a trained network to keep.

    Channels that meet at a residual Add share one ranking, by the mean score over their layers. This keeps added
    channels aligned: a narrower unit keeps a subset of the filters of a wider one.

    Args:
        criterion: `l1` keeps the filters with the largest norms (Li et al. 2017, https://arxiv.org/abs/1608.08710).
            `fpgm` keeps those farthest from the layer's geometric median (He et al. 2019,
            https://arxiv.org/abs/1811.00250).
        teacher: The trained network.
        space: Search space of the teacher.
        shape: Number of filters that each unit keeps.

    Returns:
        For each unit, the ascending indices of the filters to keep, `[width in the shape]`.

    Raises:
        UserError: If the criterion is unknown.
    """
    if criterion not in _SCORES:
        raise UserError(f"`criterion` must be one of {', '.join(CRITERIA)}. Received: {criterion!r}.")
    result = {}
    for names in _meeting_units(space):
        members = [member for name in names for member in space.unit[name].members]
        scores = np.mean([_shares(criterion, teacher, space, member) for member in members], axis=0)
        ranking = np.argsort(-scores, kind="stable")
        result |= {name: np.sort(ranking[: shape.widths[name]]) for name in names}
    return result


def _shares(criterion: str, teacher: keras.Model, space: SearchSpace, member: str) -> np.ndarray:
    """Scores of a layer's filters divided by their mean, so that layers with different scales count equally."""
    weights = named_weights(original_layer(teacher, space.graph[member]))
    kernel = weights.get("pointwise_kernel", weights.get("kernel"))
    scores = _SCORES[criterion](kernel.reshape(-1, kernel.shape[-1]).T.astype(np.float64))
    return scores / max(scores.mean(), np.finfo(np.float64).tiny)


def _meeting_units(space: SearchSpace) -> list[list[str]]:
    """Groups units whose channels meet at residual Adds."""
    meeting = DisjointSet(unit.name for unit in space.units)
    for add, bypassing in space.identities.items():
        for identity in bypassing:
            for one, other in zip(space.read_segments(identity), space.segments[add], strict=False):
                names = [*space.units_behind(one), *space.units_behind(other)]
                for name in names[1:]:
                    meeting.merge(names[0], name)
    groups: dict[str, list[str]] = {}
    for unit in space.units:
        groups.setdefault(meeting[unit.name], []).append(unit.name)
    return list(groups.values())
