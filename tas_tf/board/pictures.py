"""Pictures of distributions and shapes for TensorBoard; they need the extra `report`."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tas_tf.board.bars import EDGE, MOST_NAMED, draw_depths, draw_widths
from tas_tf.extras import missing_modules
from tas_tf.space.choices import ChoiceTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_INCHES = 0.22
# With more classes than this, numbers don't fit into the cells of a confusion matrix.
_MOST_CLASSES = 25
# Letters of a name.
_LONGEST = 20

_logger = logging.getLogger(__name__)


@functools.cache
def can_draw() -> bool:
    """Whether matplotlib is installed; logs once how to install it if it isn't."""
    if missing_modules("report"):
        _logger.warning('TensorBoard shows no pictures. To get them: pip install "tas-tf[report]"')
        return False
    return True


def _draws(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Makes a function draw names as they are, also those with dollar signs, or with letters that the font lacks."""

    @functools.wraps(function)
    def draw(*arguments: Any, **options: Any) -> np.ndarray:
        import matplotlib

        with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            return function(*arguments, **options)

    return draw


def _short(name: str) -> str:
    """A name that leaves room for the picture.

    >>> _short("cat"), _short("a name that takes more room than a picture")
    ('cat', 'a name that takes m…')
    """
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


@_draws
def draw_distributions(probabilities: np.ndarray, choices: ChoiceTable) -> np.ndarray:
    """Draws a row for each choice and a cell for each candidate; darker is more probable, the argmax has a frame.

    Args:
        probabilities: Probabilities, `[choices, candidates]`.
        choices: Units or stages in the order of the rows, at least one.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    from matplotlib.patches import Rectangle

    figure = _figure(2.5 + 0.6 * choices.longest, 0.8 + _ROW_INCHES * len(choices))
    axes = figure.subplots()
    rows = choices.unpack(probabilities)
    shown = choices.pack(rows, fill=np.nan, dtype=np.float64)
    for row, (chances, candidates) in enumerate(zip(rows, choices.candidates, strict=True)):
        best = int(np.argmax(chances))
        axes.add_patch(Rectangle((best - 0.5, row - 0.5), 1, 1, fill=False, ec="tab:red", lw=1))
        for column, candidate in enumerate(candidates):
            dark = shown[row, column] > 0.5
            axes.text(column, row, candidate, ha="center", va="center", size=6, color="white" if dark else "black")
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(choices)), choices.names, fontsize=6)
    axes.set_xticks([])
    return _image(figure)


@_draws
def draw_shape(summary: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> np.ndarray:
    """Draws the widths of a shape as bars, dropped blocks hatched, and the blocks that each stage keeps.

    Args:
        summary: Result of `tas_tf.space.summary.summarise_shape`.
        title: Text above the bars.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    units, stages = summary["units"], summary["stages"]
    figure = _figure(max(5.0, 1.5 + 0.2 * len(units)), 3.5 + 0.3 * len(stages))
    panels = figure.subplots(2 if stages else 1, 1, squeeze=False, height_ratios=[3, 1][: 2 if stages else 1])[:, 0]
    panels[0].set_title(title, fontsize=9)
    draw_widths(panels[0], units)
    if stages:
        draw_depths(panels[1], stages)
    return _image(figure)


@_draws
def draw_shapes(summaries: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> np.ndarray:
    """Draws a row for each shape and a cell for each unit: darker keeps more; units in dropped blocks are hatched.

    Args:
        summaries: Results of `tas_tf.space.summary.summarise_shape` by name, at least one, all of the same network.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    from matplotlib.patches import Rectangle

    names = [unit["name"] for unit in next(iter(summaries.values()))["units"]]
    figure = _figure(3.0 + 0.24 * len(names), 1.8 + 0.3 * len(summaries))
    axes = figure.subplots()
    shares = np.array(
        [
            [np.nan if unit["dropped"] else unit["kept"] / unit["width"] for unit in summary["units"]]
            for summary in summaries.values()
        ]
    )
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(np.isnan(shares)):
        cell = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, fill=False, hatch="////", edgecolor=EDGE, linewidth=0.3))
    axes.set_yticks(range(len(summaries)), list(summaries), fontsize=8)
    if len(names) <= MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    figure.colorbar(drawn, label="channels kept")
    return _image(figure)


@_draws
def draw_confusion(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """Draws confusion matrices side by side; darker is a larger share of the true class.

    Args:
        matrices: Numbers of images by name of the network, `[true class, predicted class]`.
        classes: Names of the classes.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    side = min(8.0, 2.2 + 0.28 * len(classes))
    figure = _figure(side * len(matrices), side)
    for axes, (name, matrix) in zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True):
        shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(classes) <= _MOST_CLASSES:
            names = [_short(name) for name in classes]
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
            for row, column in np.argwhere(matrix):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, matrix[row, column], ha="center", va="center", size=6, color=colour)
    return _image(figure)


@_draws
def draw_captioned(pngs: Sequence[bytes], captions: Sequence[str]) -> np.ndarray:
    """Draws images in rows of four, with a caption above each.

    Args:
        pngs: At least one grey or colour image as PNG, of any sizes.
        captions: Text above each image.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    from PIL import Image

    columns = min(4, len(pngs))
    rows = -(-len(pngs) // columns)
    figure = _figure(2.2 * columns, 2.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, png, caption in zip(panels, pngs, captions, strict=False):
        axes.imshow(np.asarray(Image.open(io.BytesIO(png))), cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7)
    return _image(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=80, layout="constrained")


def _image(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return tf.image.decode_png(buffer.getvalue(), channels=4)[None].numpy()
