"""Scalars by epoch, under one scheme of names for all steps: `group/name`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tas_tf.board.layout import write_layout

#: Optimizers in the order in which models list them.
_OPTIMIZERS = ("weights", "architecture")
_OF_THE_SEARCH = ("temperature", "expected_cost", "argmax_cost", "cost", "width_entropy", "depth_entropy")


def scalar_tag(name: str) -> str:
    """The tag, `group/name`, for a log. A name with a slash already contains its group.

    >>> [scalar_tag(name) for name in ("loss", "arch_loss", "accuracy", "arch_mae", "temperature", "race/loss")]
    ['loss/loss', 'loss/arch_loss', 'score/accuracy', 'score/arch_mae', 'search/temperature', 'race/loss']
    """
    if "/" in name:
        return name
    if name == "loss" or name.endswith("_loss"):
        return f"loss/{name}"
    return f"{'search' if name in _OF_THE_SEARCH else 'score'}/{name}"


class EpochScalars:
    """Writes the logs of epochs, training and validation as separate runs, so that they share charts.

    A resumed training continues the same charts in an additional event file. Steps are epochs, from 0.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self._log_dir = Path(log_dir)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write(self, epoch: int, logs: Mapping[str, Any], learning_rates: Sequence[Any]) -> None:
        """Writes one epoch.

        Args:
            epoch: Number of the epoch, from 0.
            logs: Values by name; those that start with `val_` are of validation.
            learning_rates: Learning rate of the weights, then that of the logits of a search.
        """
        for name, value in logs.items():
            run = "validation" if name.startswith("val_") else "train"
            self._write(run, scalar_tag(name.removeprefix("val_")), value, epoch)
        for name, rate in zip(_OPTIMIZERS, learning_rates, strict=False):
            self._write("train", f"learning_rate/{name}", rate, epoch)
        # Flush, so that an interrupted run shows all finished epochs.
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the event files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, run: str, tag: str, value: Any, epoch: int) -> None:
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(str(self._log_dir / run))
            if run == "train":
                with self._writers[run].as_default():
                    write_layout()
        with self._writers[run].as_default():
            tf.summary.scalar(tag, tf.cast(value, tf.float32), step=epoch)
