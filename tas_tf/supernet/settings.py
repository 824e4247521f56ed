"""Settings of how a supernet draws widths."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """Settings of how a supernet draws widths."""

    num_drawn: int | None = setting(2, "Number of widths to draw at once for each unit, or all.", at_least=1)
    noise: bool = setting(True, "Adds Gumbel noise to the draws.")
