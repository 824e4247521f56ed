"""Default settings for a model that is trained already; they keep the time moderate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.latency.settings import LatencySettings
from tas_tf.race.settings import RaceSettings
from tas_tf.recipes import SEARCHING, of_recipe
from tas_tf.searching.settings import SearchSettings
from tas_tf.settings import Settings
from tas_tf.training.settings import TrainSettings

#: Epochs of a search, and of a training without a recipe.
EPOCHS = 20
_BATCH = 64
# The paper's learning rate, 0.1 for batches of 256, scaled with the batch size.
_RATE_PER_IMAGE = 0.1 / 256
_RATE_BEFORE_RACE = 0.1 / 64
_HELD_OUT = 2000

SomeSettings = TypeVar("SomeSettings", bound=Settings)
Changes = Mapping[str, Any]


def check_settings(argument: str, given: Settings | Changes | None, kind: type[Settings]) -> None:
    """Checks settings before any data is read.

    Args:
        argument: Name of the argument that holds them.
        given: All settings, changes to the default ones by name, or `None`.
        kind: Class of the settings.

    Raises:
        UserError: They are something else, or a name or a value is invalid.
    """
    if given is None or isinstance(given, kind):
        return
    if not isinstance(given, Mapping):
        raise UserError(
            f"`{argument}` must be a `tas_tf.{kind.__name__}` or a mapping of some of its settings. "
            f"Received: {type(given).__name__}."
        )
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"`{argument}` must have settings among {', '.join(known)}. Received: {unknown[0]!r}.")
    kind(**given)


def seed_of(given: Settings | Changes | None) -> int:
    """The seed in settings that `check_settings` passed."""
    if given is None or isinstance(given, Mapping):
        return (given or {}).get("seed", 0)
    return getattr(given, "seed", 0)


def latency_settings(given: LatencySettings | Changes | None) -> LatencySettings:
    """Settings of a budget in time, all of them or changes to the defaults."""
    return given if isinstance(given, LatencySettings) else LatencySettings(**(given or {}))


def search_settings(given: SearchSettings | Changes | None, data: TrainingData, replicas: int = 1) -> SearchSettings:
    """Settings of a search; by default it takes 20 epochs from the model's weights.

    Args:
        given: All settings, or changes to the default ones. A given batch size changes the learning rate as well.
        data: Data of the search.
        replicas: Devices that share a batch.
    """
    if isinstance(given, SearchSettings):
        return given
    share = (given or {}).get("split_share", SearchSettings.split_share)
    smaller = min(part := data.weights_part(share).num_train, data.num_train - part)
    return _filled(SearchSettings, given, smaller, replicas, from_teacher=True, held_out_limit=_HELD_OUT)


def training_settings(
    given: TrainSettings | Changes | None, data: TrainingData, replicas: int = 1, *, recipe: str = SEARCHING
) -> TrainSettings:
    """Settings of a training from trained weights, which need no warm-up.

    Args:
        given: All settings, or changes to the default ones. A given batch size changes the learning rate as well.
        data: Data of the training.
        replicas: Devices that share a batch.
        recipe: Recipe whose epochs are the default. With a race, which tries several learning rates, the default rate
            is the highest of them.
    """
    if isinstance(given, TrainSettings):
        return given
    defaults = of_recipe(recipe, "student")
    settings = _filled(TrainSettings, given, data.num_train, replicas, **{"warmup_epochs": 0, **defaults})
    raised = recipe != SEARCHING and "lr" not in (given or {})
    return replace(settings, lr=_RATE_BEFORE_RACE * settings.batch_size) if raised else settings


def race_settings(given: RaceSettings | Changes | None, recipe: str) -> RaceSettings:
    """Settings of a race.

    Args:
        given: All settings, or changes to those of the recipe.
        recipe: Name of the recipe.
    """
    if isinstance(given, RaceSettings):
        return given
    return RaceSettings(**{**of_recipe(recipe, "race"), **(given or {})})


def _filled(
    kind: type[SomeSettings],
    given: Changes | None,
    num_images: int,
    replicas: int,
    **defaults: Any,
) -> SomeSettings:
    # All images if there are fewer, rounded down so that all replicas get the same number.
    wanted = min(defaults.get("batch_size", _BATCH), num_images)
    batch = {"batch_size": max(1, wanted // replicas) * replicas, **(given or {})}["batch_size"]
    defaults = {"epochs": EPOCHS, "lr": _RATE_PER_IMAGE * batch, **defaults, "batch_size": batch}
    return kind(**{**defaults, **(given or {})})
