"""How figures of a report look: SVG that takes its colours from the surrounding page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import markupsafe
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Placeholder colours, later replaced by variables of the style sheet: one drawing serves light and dark mode.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
TEACHER, STUDENT, RIVAL = "#040404", "#050505", "#060606"
COLOURS = {INK: "ink", FAINT: "faint", GRID: "grid", TEACHER: "teacher", STUDENT: "student", RIVAL: "rival"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
# Inches; they set the size of a figure's text relative to the page's.
NARROW, WIDE = (5.0, 3.1), (9.5, 3.9)


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes:
        title: Heading above the figure.
        alt: Text alternative for screen readers.
        svg: The drawing.
        wide: Whether the figure needs the full width of the page.
    """

    title: str
    alt: str
    svg: markupsafe.Markup
    wide: bool = False


def scaled(values: Sequence[float | None], size: float) -> list[float]:
    """Divides values by a unit; `None` becomes NaN, a gap in a line."""
    return [float("nan") if value is None else value / size for value in values]


def label_epochs(axes: Axes) -> None:
    """Labels a horizontal axis of epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_above(axes: Axes, **options: object) -> None:
    """Puts the legend above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, columnspacing=1.2, **options)


def render(title: str, alt: str, draw: Callable[[Axes], None], *, size: tuple[float, float]) -> Drawing:
    """Runs `draw` on new axes and turns the result into SVG for a page.

    Args:
        title: Heading above the figure.
        alt: Text alternative for screen readers.
        draw: Draws on the axes.
        size: Width and height in inches, `NARROW` or `WIDE`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = markupsafe.Markup(_for_page(buffer.getvalue(), prefix=title))
    return Drawing(title, alt, svg, wide=size == WIDE)


def _for_page(svg: str, *, prefix: str) -> str:
    """Removes the XML header, prefixes ids since drawings share a page, and takes colours from the page."""
    svg = svg[svg.index("<svg") :]
    prefix = re.sub(r"\W+", "-", prefix.lower())
    for before in ('id="', 'href="#', "url(#"):
        svg = svg.replace(before, f"{before}{prefix}-")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for stand_in, name in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return svg
