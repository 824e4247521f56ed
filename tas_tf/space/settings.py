"""Settings that define which parts of a network may change."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.settings import Settings, setting

#: What may shrink.
AXES = ("both", "width", "depth")


@dataclass(frozen=True, kw_only=True)
class SpaceSettings(Settings):
    """Which parts of a network may change."""

    axes: str = setting("both", "What the search may reduce.", choices=AXES)
    width_divisor: int = setting(1, "Rounds widths to multiples of this number, such as 8.", at_least=1)
    couple_trunk: bool | None = setting(
        None,
        "Gives all block outputs of a stage the same width, so that no projections are needed; by default, only if "
        "projections would be expensive, as in bottleneck networks.",
    )
    search_dense: bool = setting(
        False,
        "Also searches hidden Dense layers that act on vectors. They are always searched if nothing else can be.",
    )
