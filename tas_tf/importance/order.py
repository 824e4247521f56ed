"""Puts the channels of a trained network in order of importance, so that the first ones are the best to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from tas_tf.errors import UserError
from tas_tf.graph.kinds import is_op
from tas_tf.graph.layers import copy_model, original_layer
from tas_tf.importance.criteria import FROM_IMAGES, Batches, score_channels
from tas_tf.importance.settings import ImportanceSettings
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import named_weights, slice_weight, weights_by_name

_BATCH = 100


def channel_order(
    criterion: str, model: keras.Model, space: SearchSpace, batches: Batches | None = None
) -> dict[str, np.ndarray]:
    """Ranks the channels of each unit, most important first.

    Channels that meet at a residual Add share one ranking, by the mean score over their layers. Channels that the
    network adds up thus stay aligned, and a narrower unit keeps a part of what a wider one keeps.

    Args:
        criterion: See `score_channels`.
        model: The trained network.
        space: Search space of the network.
        batches: A few batches of images and class numbers, for criteria that need them.

    Returns:
        For each unit, the indices of all its channels, `[width]`.

    Raises:
        UserError: See `score_channels`, or channels that meet have no score.
    """
    scores = score_channels(criterion, model, space, batches)
    order = {}
    for names in meeting_units(space):
        members = [member for name in names for member in space.unit[name].members]
        shares = [_shares(scores[member]) for member in members if member in scores]
        if not shares:
            raise UserError(
                f"`importance`={criterion} needs batch normalisation with scales. There is none behind "
                f"{', '.join(members)}. Use another criterion, such as l1."
            )
        ranking = np.argsort(-np.mean(shares, axis=0), kind="stable")
        order |= dict.fromkeys(names, ranking)
    return order


def rank(
    model: keras.Model,
    space: SearchSpace,
    settings: ImportanceSettings,
    calibration: Callable[[int, int], Batches] | None = None,
) -> keras.Model:
    """Returns a network with its channels in order of importance; it computes the same.

    Args:
        model: The trained network.
        space: Search space of the network.
        settings: How channels are ranked. With `none`, the network itself is returned.
        calibration: Returns batches of training images, given their size and number.

    Raises:
        UserError: See `channel_order`.
    """
    criterion = settings.importance
    if criterion == "none":
        return model
    batches = None
    if criterion in FROM_IMAGES and calibration is not None:
        batches = calibration(_BATCH, -(-settings.importance_images // _BATCH))
    return reorder(model, space, channel_order(criterion, model, space, batches))


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
            for one, other in zip(space.read_segments(identity), space.segments[add], strict=False):
                names = [*space.units_behind(one), *space.units_behind(other)]
                for name in names[1:]:
                    meeting.merge(names[0], name)
    groups: dict[str, list[str]] = {}
    for unit in space.units:
        groups.setdefault(meeting[unit.name], []).append(unit.name)
    return list(groups.values())


def _shares(scores: np.ndarray) -> np.ndarray:
    """Scores of a layer divided by their mean, so that layers with different scales count equally."""
    return scores / max(scores.mean(), np.finfo(np.float64).tiny)
