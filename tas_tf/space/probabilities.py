"""Converts the final probabilities of a search between arrays and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.space.choices import ChoiceTable
from tas_tf.space.space import SearchSpace


def to_json(space: SearchSpace, widths: np.ndarray, depths: np.ndarray) -> dict[str, Any]:
    """Lists probabilities by unit or stage and by candidate.

    Args:
        space: Search space, which sets the order of the rows.
        widths: Width probabilities, `[units, candidates]`, one row per searched unit.
        depths: Depth probabilities, `[stages, candidates]`, one row per searched stage.
    """
    return {
        "graph_digest": space.graph.digest,
        "widths": _by_name(space.width_choices, widths),
        "depths": _by_name(space.depth_choices, depths),
    }


def from_json(space: SearchSpace, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the output of `to_json`.

    Raises:
        UserError: If the probabilities belong to another network or another space.
    """
    same = data["graph_digest"] == space.graph.digest
    for key, choices in (("widths", space.width_choices), ("depths", space.depth_choices)):
        wanted = {name: list(map(str, row)) for name, row in zip(choices.names, choices.candidates, strict=True)}
        same = same and {name: list(row) for name, row in data[key].items()} == wanted
    if not same:
        raise UserError(
            f"The probabilities of the search don't belong to {space.graph.network} or have other candidates. "
            "Search again, or use the flags of that search."
        )
    return _rows(space.width_choices, data["widths"]), _rows(space.depth_choices, data["depths"])


def _by_name(choices: ChoiceTable, array: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {str(candidate): float(chance) for candidate, chance in zip(candidates, row, strict=True)}
        for name, candidates, row in zip(choices.names, choices.candidates, choices.unpack(array), strict=True)
    }


def _rows(choices: ChoiceTable, data: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    return choices.pack([list(data[name].values()) for name in choices.names])
