"""Checks which of the arguments of `compress` go together."""

from __future__ import annotations

from collections.abc import Mapping

from tas_tf.errors import UserError
from tas_tf.recipes import DEFAULT, RECIPES, SEARCHING
from tas_tf.student.build import INITIAL_WEIGHTS
from tas_tf.timing.plan import DECIDED


def checked_recipe(recipe: str | None, race: object | None, search: object | None, duration: str | None) -> str:
    """Returns the recipe, by default the one that other arguments suit.

    Raises:
        UserError: The arguments don't suit each other.
    """
    if recipe is None:
        recipe = DEFAULT if search is None or race is not None else SEARCHING
    if recipe not in RECIPES:
        raise UserError(f"`recipe` must be one of {', '.join(RECIPES)}. Received: {recipe!r}.")
    unused, given = ("race", race) if recipe == SEARCHING else ("search", search)
    searches = (race.get("searched") if isinstance(race, Mapping) else getattr(race, "searched", 0)) or 0
    if given is not None and not (unused == "search" and searches):
        raise UserError(f"`{unused}` has no effect with `recipe`={recipe}. Leave one of them out.")
    if duration is not None and recipe == SEARCHING:
        raise UserError(
            "`time` plans a race and what follows; `search` chooses a differentiable search instead. Leave out `time`, "
            "or `search`."
        )
    if duration is not None and searches:
        raise UserError("`time` doesn't plan a differentiable search. Leave out `searched`, or `time`.")
    return recipe


def check_undecided(recipe: str | None, race: object | None, training: object | None, duration: str | None) -> None:
    """Rejects settings that `time` decides.

    Raises:
        UserError: Some are given, and `time` too.
    """
    given = [] if recipe is None else ["recipe"]
    for section, changes in (("race", race), ("student", training)):
        given += [f"{section}.{name}" for name in changes] if isinstance(changes, Mapping) else []
    decided = [name for name in given if name in DECIDED]
    if duration is not None and decided:
        raise UserError(f"`time` decides `{decided[0].rpartition('.')[2]}`. Leave out one of the two.")


def checked_inherit(inherit: str | None, recipe: str) -> str:
    """Returns where the student's weights come from, by default from what found its shape.

    Raises:
        UserError: Nothing of that name is there.
    """
    saved = "supernet" if recipe == SEARCHING else "race"
    expected = [source for source in INITIAL_WEIGHTS if source in ("none", "teacher", saved)]
    if inherit is not None and inherit not in expected:
        raise UserError(
            f"`inherit` must be one of {', '.join(expected)} with `recipe`={recipe}. Received: {inherit!r}."
        )
    return inherit or saved
