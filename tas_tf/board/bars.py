"""Bars of the channels and blocks that a shape keeps, for TensorBoard and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FULL, KEPT, EDGE = "#cdd4de", "#0f6fb8", "#1c2430"
#: With more bars than this, names don't fit under them.
MOST_NAMED = 45


def draw_widths(
    axes: Axes,
    units: Sequence[Mapping[str, Any]],
    *,
    full: str = FULL,
    kept: str = KEPT,
    edge: str = EDGE,
) -> None:
    """Draws a bar for each unit: the channels that are kept in front of all; units in dropped blocks are hatched.

    Args:
        axes: Axes of matplotlib.
        units: `name`, `width`, `kept` and `dropped` of each unit.
        full: Colour of all channels.
        kept: Colour of the channels that are kept.
        edge: Colour of the hatches.
    """
    places, widths = range(len(units)), [unit["width"] for unit in units]
    axes.bar(places, widths, color=full, width=0.8)
    axes.bar(places, [0 if unit["dropped"] else unit["kept"] for unit in units], color=kept, width=0.8)
    dropped = [place for place in places if units[place]["dropped"]]
    hatched = {"color": "none", "edgecolor": edge, "hatch": "////", "linewidth": 0.5}
    axes.bar(dropped, [widths[place] for place in dropped], width=0.8, **hatched)
    axes.set_ylabel("channels")
    axes.set_xlim(-0.7, len(units) - 0.3)
    if len(units) <= MOST_NAMED:
        axes.set_xticks(places, [unit["name"] for unit in units], rotation=90, fontsize=8)
    else:
        axes.set_xlabel("width units in network order")


def draw_depths(axes: Axes, stages: Sequence[Mapping[str, Any]], *, full: str = FULL, kept: str = KEPT) -> None:
    """Draws a bar for each stage: the blocks that are kept in front of all.

    Args:
        axes: Axes of matplotlib.
        stages: `name`, `blocks` and `kept` of each stage.
        full: Colour of all blocks.
        kept: Colour of the blocks that are kept.
    """
    from matplotlib.ticker import MaxNLocator

    places, blocks = range(len(stages)), [stage["blocks"] for stage in stages]
    axes.barh(places, blocks, color=full, height=0.6)
    axes.barh(places, [stage["kept"] for stage in stages], color=kept, height=0.6)
    for place, stage in enumerate(stages):
        text = f"{stage['kept']} of {stage['blocks']}"
        axes.annotate(text, (stage["blocks"], place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [stage["name"] for stage in stages])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(blocks))
    axes.set_xlabel("blocks")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
