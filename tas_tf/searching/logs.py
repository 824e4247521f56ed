"""Logs a search's distributions, decoded shape and costs for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf

from tas_tf.board.distributions import write_distributions
from tas_tf.board.pictures import can_draw, draw_distributions, draw_shape
from tas_tf.cost.cost_model import amount, reported
from tas_tf.searching.monitor import SearchMonitor
from tas_tf.space.summary import summarise_shape


class SearchSummaries(keras.callbacks.Callback):
    """Writes distributions, decoded shape and costs after each epoch.

    Images need the extra `report`. Without it, images are left out and one warning is logged.

    Args:
        log_dir: Folder of the event files.
        monitor: Monitor of the search.
    """

    def __init__(self, log_dir: str | Path, monitor: SearchMonitor) -> None:
        super().__init__()
        self._log_dir, self._monitor = Path(log_dir) / "architecture", monitor
        self._writer: tf.summary.SummaryWriter | None = None

    def on_epoch_end(self, epoch, logs=None):
        """Writes one epoch."""
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))
        monitor = self._monitor
        space = monitor.space
        draws = can_draw()
        tables = {"widths": space.width_choices, "depths": space.depth_choices}
        with self._writer.as_default(step=epoch):
            for (axis, choices), rows in zip(tables.items(), monitor.probabilities(), strict=True):
                write_distributions(axis, rows, choices, epoch)
                if len(choices) and draws:
                    tf.summary.image(f"architecture/{axis}", draw_distributions(rows, choices))
            if monitor.shape is not None:
                tf.summary.text("architecture/shape", _describe(monitor))
                if draws:
                    summary = summarise_shape(space, monitor.shape)
                    title = f"Shape after epoch {epoch + 1}: {_told_cost(monitor)}"
                    tf.summary.image("architecture/decoded", draw_shape(summary, title))
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


def _told_cost(monitor: SearchMonitor) -> str:
    cost = monitor.cost(monitor.shape)
    return f"{amount(monitor.cost.kind, cost)}, {cost / monitor.cost.full:.3f} of the whole"


def _describe(monitor: SearchMonitor) -> str:
    shape, space = monitor.shape, monitor.space
    lines = ["| choice | kept | of |", "|---|---|---|"]
    lines += [f"| {stage.name} | {shape.depths[stage.name]} | {stage.blocks} blocks |" for stage in space.stages]
    lines += [f"| {unit.name} | {shape.widths[unit.name]} | {unit.width} filters |" for unit in space.units]
    return f"{_told_cost(monitor)}\n\n" + "\n".join(lines)
