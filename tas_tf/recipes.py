"""Recipes: how a student is found, and settings that suit a network which is trained already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHORT = {
    "teacher.epochs": 30,
    "teacher.warmup_epochs": 1,
    "student.warmup_epochs": 0,
    "student.batch_size": 64,
    # A constant weight holds students of a briefly trained teacher at its level, see docs/RESULTS.md.
    "student.alpha": 0.5,
    "student.alpha_end": 0.0,
    # More epochs for less than the cost of asking the teacher in each, see docs/RESULTS.md.
    "student.views": 8,
    # Only if searched shapes take part in the race.
    "search.epochs": 20,
    "search.from_teacher": True,
}

#: Defaults by recipe, as dotted names of settings. What a recipe leaves out keeps the default of its class, which are
#: the paper's. `fast` and `balanced` let shapes race from the trained weights; `paper` searches differentiably alone.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "fast": {**_SHORT, "student.epochs": 10},
    "balanced": {**_SHORT, "student.epochs": 50, "race.race_effort": 0.1},
    "paper": {},
}
#: The recipe if none is given, and the one if epochs of a search are given.
DEFAULT, SEARCHING = "balanced", "paper"


def of_recipe(recipe: str, section: str) -> dict[str, Any]:
    """Defaults of one section of the settings.

    >>> of_recipe("fast", "search")
    {'epochs': 20, 'from_teacher': True}
    """
    named = (name.split(".") for name in RECIPES[recipe])
    return {name: RECIPES[recipe][f"{place}.{name}"] for place, name in named if place == section}
