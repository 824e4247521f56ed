"""The settings of a supernet's draws."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """How widths are drawn."""

    num_drawn: int | None = setting(2, "Widths drawn at once for each unit, or all.", at_least=1)
    noise: bool = setting(True, "Adds Gumbel noise to the draws.")
