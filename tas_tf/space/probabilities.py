"""The probabilities that a search ends with, by name as JSON and in rows as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.space.space import SearchSpace, Stage, WidthUnit


def to_json(space: SearchSpace, widths: np.ndarray, depths: np.ndarray) -> dict[str, Any]:
    """Probabilities by unit or stage and candidate.

    Args:
        space: Gives the order of the rows.
        widths: `[units, candidates]`, a row for each searched unit.
        depths: `[stages, candidates]`, a row for each searched stage.
    """
    return {
        "graph_digest": space.graph.digest,
        "widths": _by_name(space.searched_units, widths),
        "depths": _by_name(space.searched_stages, depths),
    }


def from_json(space: SearchSpace, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Reads what `to_json` gave.

    Raises:
        UserError: They are of another network or another space.
    """
    same = data["graph_digest"] == space.graph.digest
    choices = {"widths": space.searched_units, "depths": space.searched_stages}
    for key, rows in choices.items():
        wanted = {choice.name: [str(candidate) for candidate in choice.candidates] for choice in rows}
        same = same and {name: list(row) for name, row in data[key].items()} == wanted
    if not same:
        raise UserError(
            f"The search's probabilities are of another network than {space.graph.network}, or of other candidates. "
            "Search again, or give the flags of the search."
        )
    return _rows(space.searched_units, data["widths"]), _rows(space.searched_stages, data["depths"])


def _by_name(choices: Sequence[WidthUnit | Stage], rows: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        choice.name: {str(candidate): float(chance) for candidate, chance in zip(choice.candidates, row, strict=False)}
        for choice, row in zip(choices, rows, strict=False)
    }


def _rows(choices: Sequence[WidthUnit | Stage], data: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    rows = np.zeros((len(choices), max((len(choice.candidates) for choice in choices), default=1)), np.float32)
    for row, choice in enumerate(choices):
        rows[row, : len(choice.candidates)] = list(data[choice.name].values())
    return rows
