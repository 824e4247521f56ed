"""Logs a race for TensorBoard: one curve for each proposal."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tas_tf.race.lap import Lap
from tas_tf.training.callbacks import write_scalar


class RaceSummaries:
    """Writes loss and score on held-out images after each lap, with one run for each proposal. Steps are rounds.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self._log_dir = Path(log_dir) / "race"

    def __call__(self, lap: Lap) -> None:
        """Writes one lap."""
        name = lap.proposal.name.replace("/", "-").replace(" ", "_")
        writer = tf.summary.create_file_writer(str(self._log_dir / f"{name}_rate_x{lap.rate_factor:g}"))
        with writer.as_default():
            write_scalar("race/held_out_loss", lap.loss, lap.round)
            if lap.score is not None:
                write_scalar(f"race/held_out_{lap.metric}", lap.score, lap.round)
        writer.close()
