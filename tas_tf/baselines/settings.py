"""The settings of a shape that is made without a search."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.baselines.shapes import BASELINE_KINDS
from tas_tf.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(Settings):
    """Which shape is made without a search, and how."""

    kind: str | None = setting(None, "Which shape to write.", choices=BASELINE_KINDS)
    random_shapes: int = setting(1, "Number of random shapes that are trained briefly to choose the best.", at_least=1)
    random_epochs: int = setting(5, "Epochs for which each of several random shapes is trained.", at_least=1)
