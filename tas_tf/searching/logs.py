"""Logs a search's distributions as images and its decoded shape as text, for TensorBoard."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import amount, reported
from tas_tf.extras import missing_modules
from tas_tf.searching.monitor import SearchMonitor
from tas_tf.space.choices import ChoiceTable

_ROW_INCHES = 0.22

_logger = logging.getLogger(__name__)


class SearchSummaries(keras.callbacks.Callback):
    """Writes the distributions and the decoded shape after each epoch.

    Images of the distributions need the extra `report`. Without it, images are left out and one warning is logged.

    Args:
        log_dir: Folder of the event files.
        monitor: Monitor of the search.
    """

    def __init__(self, log_dir: str | Path, monitor: SearchMonitor) -> None:
        super().__init__()
        self._log_dir, self._monitor = Path(log_dir) / "architecture", monitor
        self._writer: tf.summary.SummaryWriter | None = None
        self._draws = True

    def on_epoch_end(self, epoch, logs=None):
        """Writes one epoch."""
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))
            self._draws = not missing_modules("report")
            if not self._draws:
                _logger.warning('TensorBoard shows no images of the search. To get them: pip install "tas-tf[report]"')
        monitor = self._monitor
        widths, depths = monitor.probabilities()
        with self._writer.as_default(step=epoch):
            space = monitor.space
            for axis, rows, choices in (
                ("widths", widths, space.width_choices),
                ("depths", depths, space.depth_choices),
            ):
                if len(choices) and self._draws:
                    tf.summary.image(f"architecture/{axis}", draw_distributions(rows, choices))
            if monitor.shape is not None:
                tf.summary.text("architecture/shape", _describe(monitor))
            full, kind = monitor.cost.full, monitor.cost.kind
            for name, value in (("budget", monitor.limit), *_shares(logs or {}, full)):
                tf.summary.scalar(f"cost_in_{kind}/{name}", reported(kind, value))
        self._writer.flush()

    def on_train_end(self, logs=None):
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()


def _shares(logs: dict, full: int) -> list[tuple[str, float]]:
    names = {"expected": "expected_cost", "argmax": "argmax_cost", "decoded": "val_cost"}
    return [(name, logs[log] * full) for name, log in names.items() if log in logs]


def _describe(monitor: SearchMonitor) -> str:
    shape, space = monitor.shape, monitor.space
    lines = ["| choice | kept | of |", "|---|---|---|"]
    lines += [f"| {stage.name} | {shape.depths[stage.name]} | {stage.blocks} blocks |" for stage in space.stages]
    lines += [f"| {unit.name} | {shape.widths[unit.name]} | {unit.width} filters |" for unit in space.units]
    cost = monitor.cost(shape)
    return f"{amount(monitor.cost.kind, cost)}, {cost / monitor.cost.full:.3f} of the whole\n\n" + "\n".join(lines)


def draw_distributions(probabilities: np.ndarray, choices: ChoiceTable) -> np.ndarray:
    """Draws a row for each choice and a cell for each candidate; darker is more probable, the argmax has a frame.

    Args:
        probabilities: Probabilities, `[choices, candidates]`.
        choices: Units or stages in the order of the rows, at least one.

    Returns:
        An image, uint8 `[1, height, width, 4]`.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    size = (2.5 + 0.6 * choices.longest, 0.8 + _ROW_INCHES * len(choices))
    figure = Figure(figsize=size, dpi=80, layout="constrained")
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return tf.image.decode_png(buffer.getvalue(), channels=4)[None].numpy()
