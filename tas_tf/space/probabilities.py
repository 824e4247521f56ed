"""The probabilities that a search ends with, by name as JSON and in rows as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.space.choices import ChoiceTable
from tas_tf.space.space import SearchSpace


def to_json(space: SearchSpace, widths: np.ndarray, depths: np.ndarray) -> dict[str, Any]:
    """Probabilities by unit or stage and candidate.

    Args:
        space: Gives the order of the rows.
        widths: `[units, candidates]`, a row for each searched unit.
        depths: `[stages, candidates]`, a row for each searched stage.
    """
    return {
        "graph_digest": space.graph.digest,
        "widths": _by_name(space.width_choices, widths),
        "depths": _by_name(space.depth_choices, depths),
    }


def from_json(space: SearchSpace, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Reads what `to_json` gave.

    Raises:
        UserError: They are of another network or another space.
    """
    same = data["graph_digest"] == space.graph.digest
    for key, choices in (("widths", space.width_choices), ("depths", space.depth_choices)):
        wanted = {name: list(map(str, row)) for name, row in zip(choices.names, choices.candidates, strict=True)}
        same = same and {name: list(row) for name, row in data[key].items()} == wanted
    if not same:
        raise UserError(
            f"The search's probabilities are of another network than {space.graph.network}, or of other candidates. "
            "Search again, or give the flags of the search."
        )
    return _rows(space.width_choices, data["widths"]), _rows(space.depth_choices, data["depths"])


def _by_name(choices: ChoiceTable, array: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {str(candidate): float(chance) for candidate, chance in zip(candidates, row, strict=True)}
        for name, candidates, row in zip(choices.names, choices.candidates, choices.unpack(array), strict=True)
    }


def _rows(choices: ChoiceTable, data: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    return choices.pack([list(data[name].values()) for name in choices.names])
