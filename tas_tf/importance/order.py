"""Puts the channels of a trained network in order of importance, so that the first ones are the best to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import keras
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from tas_tf.errors import UserError
from tas_tf.graph.kinds import is_op
from tas_tf.graph.layers import copy_model, original_layer
from tas_tf.importance.criteria import FROM_IMAGES, Batches, score_channels
from tas_tf.importance.settings import ImportanceSettings
from tas_tf.objectives.objective import Objective
from tas_tf.space.channels import differing_pairs
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import named_weights, slice_weight, weights_by_name

_BATCH = 100


def channel_order(
    criterion: str,
    model: keras.Model,
    space: SearchSpace,
    batches: Batches | None = None,
    objective: Objective | None = None,
) -> dict[str, np.ndarray]:
    """Ranks the channels of each unit, most important first.

    Channels that meet at a residual Add share one ranking, by the mean score over their layers. Channels that the
    network adds up thus stay aligned, and a narrower unit keeps a part of what a wider one keeps. Where zeros are added
    to the channels of an identity, its channels and those of the branch keep their order. Channels that are kept or
    dropped in groups are ranked in groups.

    Args:
        criterion: See `score_channels`.
        model: The trained network.
        space: Search space of the network.
        batches: A few batches of images and labels, for criteria that need them.
        objective: See `score_channels`.

    Returns:
        For each unit, the indices of all its channels, `[width]`.

    Raises:
        UserError: See `score_channels`, or channels that meet have no score.
    """
    scores = score_channels(criterion, model, space, batches, objective)
    order: dict[str, np.ndarray] = {}
    fixed = _aligned_by_place(space)
    for names in meeting_units(space):
        if not fixed.isdisjoint(names):
            order |= {name: np.arange(space.unit[name].width) for name in names}
            continue
        members = [member for name in names for member in space.unit[name].members]
        shares = [_shares(scores[member]) for member in members if member in scores]
        if not shares:
            raise UserError(
                f"`importance`={criterion} needs batch normalisation with scales. There is none behind "
                f"{', '.join(members)}. Use another criterion, such as l1."
            )
        step = math.lcm(*(space.unit[name].step for name in names))
        order |= dict.fromkeys(names, _ranking(np.mean(shares, axis=0), step))
    return order


def rank(
    model: keras.Model,
    space: SearchSpace,
    settings: ImportanceSettings,
    calibration: Callable[[int, int], Batches] | None = None,
    objective: Objective | None = None,
) -> keras.Model:
    """Returns a network with its channels in order of importance; it computes the same.

    Args:
        model: The trained network.
        space: Search space of the network.
        settings: How channels are ranked. With `none`, the network itself is returned.
        calibration: Returns batches of training images, given their size and number.
        objective: See `score_channels`.

    Raises:
        UserError: See `channel_order`.
    """
    criterion = settings.importance
    if criterion == "none":
        return model
    batches = None
    if criterion in FROM_IMAGES and calibration is not None:
        batches = calibration(_BATCH, -(-settings.importance_images // _BATCH))
    return reorder(model, space, channel_order(criterion, model, space, batches, objective))


def check_rankable(model: keras.Model, space: SearchSpace, settings: ImportanceSettings) -> None:
    """Checks that a network has what its ranking needs.

    Args:
        model: The network, trained or not.
        space: Search space of the network.
        settings: How channels are ranked.

    Raises:
        UserError: The network lacks it.
    """
    if settings.importance not in (*FROM_IMAGES, "none"):
        channel_order(settings.importance, model, space)


def reorder(model: keras.Model, space: SearchSpace, order: Mapping[str, np.ndarray]) -> keras.Model:
    """Returns a copy of a network with its channels in another order; it computes the same.

    Args:
        model: The network.
        space: Search space of the network.
        order: Order of each unit's channels, from `channel_order`.
    """
    result = copy_model(model)
    active = ActiveChannels(space, Shape.full(space), order)
    for node in space.graph:
        if is_op(node.module) or not node.num_params:
            continue
        layer = original_layer(result, node)
        full = named_weights(layer)
        for name, weight in weights_by_name(layer).items():
            weight.assign(slice_weight(full[name], name, node, active))
    return result


def meeting_units(space: SearchSpace) -> list[list[str]]:
    """Groups units whose channels meet at residual Adds."""
    meeting = DisjointSet(unit.name for unit in space.units)
    for add, bypassing in space.identities.items():
        for identity in bypassing:
            for one, other in differing_pairs(space.read_segments(identity), space.segments[add]):
                names = [*space.units_behind(one), *space.units_behind(other)]
                for name in names[1:]:
                    meeting.merge(names[0], name)
    groups: dict[str, list[str]] = {}
    for unit in space.units:
        groups.setdefault(meeting[unit.name], []).append(unit.name)
    return list(groups.values())


def _aligned_by_place(space: SearchSpace) -> frozenset[str]:
    """Units whose channels meet others at different places."""
    return frozenset(
        name
        for _, _, reads, makes in space.projections()
        if [segment.width for segment in reads] != [segment.width for segment in makes]
        for segment in (*reads, *makes)
        for name in space.units_behind(segment)
    )


def _ranking(scores: np.ndarray, step: int) -> np.ndarray:
    """Indices of channels, best first, in groups of `step` consecutive channels that are ranked by their mean."""
    groups = np.argsort(-scores.reshape(-1, step).mean(1), kind="stable")
    return (groups[:, None] * step + np.arange(step)).reshape(-1)


def _shares(scores: np.ndarray) -> np.ndarray:
    """Scores of a layer divided by their mean, so that layers with different scales count equally."""
    return scores / max(scores.mean(), np.finfo(np.float64).tiny)
