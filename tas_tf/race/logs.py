"""Logs a race for TensorBoard: one curve for each proposal, the shortlist as a picture, and the standings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tas_tf.board.pictures import can_draw, draw_shapes
from tas_tf.cost.cost_model import CostModel
from tas_tf.race.lap import Lap
from tas_tf.space.summary import summarise_shape


class RaceSummaries:
    """Writes loss and score on held-out images after each lap, with one run for each proposal. Steps are rounds.

    A run of its own, `standings`, has a picture of all shapes and a table of all losses; its steps are laps.

    Args:
        log_dir: Folder of the event files.
        cost: Cost model.
    """

    def __init__(self, log_dir: str | Path, cost: CostModel) -> None:
        self._log_dir, self._cost = Path(log_dir) / "race", cost
        self._laps: list[Lap] = []
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def __call__(self, lap: Lap, kept: bool) -> None:
        """Writes one lap.

        Args:
            lap: The lap.
            kept: Whether it was run, and written, before an interruption.
        """
        self._laps.append(lap)
        if kept:
            return
        name = lap.proposal.name.replace("/", "-").replace(" ", "_")
        with self._writing(f"{name}_rate_x{lap.rate_factor:g}", lap.round):
            tf.summary.scalar("race/held_out_loss", lap.loss)
            if lap.score is not None:
                tf.summary.scalar(f"race/held_out_{lap.metric}", lap.score)
        with self._writing("standings", len(self._laps)):
            tf.summary.text("race/standings", standings(self._laps, self._cost))
            if can_draw():
                shapes = {
                    one.proposal.name: summarise_shape(self._cost.space, one.proposal.shape) for one in self._laps
                }
                tf.summary.image("race/shapes", draw_shapes(shapes))

    def close(self) -> None:
        """Closes the event files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    @contextlib.contextmanager
    def _writing(self, name: str, step: int) -> Iterator[None]:
        """Writes to a run's only event file, since TensorBoard doesn't know the order of two of the same second."""
        if name not in self._writers:
            self._writers[name] = tf.summary.create_file_writer(str(self._log_dir / name))
        with self._writers[name].as_default(step=step):
            yield
        self._writers[name].flush()


def standings(laps: list[Lap], cost: CostModel) -> str:
    """The laps of a race as a table in Markdown: a row for each shape and rate, a column for each round.

    Shapes that came furthest stand first, and of those the ones with the lowest loss.

    Args:
        laps: Laps so far.
        cost: Cost model.
    """
    rounds = sorted({lap.round for lap in laps})
    rows: dict[tuple[str, float], dict[int, Lap]] = {}
    for lap in laps:
        rows.setdefault((lap.proposal.name, lap.rate_factor), {})[lap.round] = lap
    ordered = sorted(rows.items(), key=lambda row: (-max(row[1]), row[1][max(row[1])].loss))
    lines = [
        f"| shape | blocks | {cost.kind} | learning rate | {' | '.join(f'loss in round {each}' for each in rounds)} |",
        "|---" * (4 + len(rounds)) + "|",
    ]
    for (name, factor), by_round in ordered:
        proposal = by_round[max(by_round)].proposal
        losses = [by_round[each].loss if each in by_round else math.nan for each in rounds]
        told = ["" if math.isnan(loss) else f"{loss:.4f}" for loss in losses]
        blocks = "/".join(map(str, proposal.depths)) or "-"
        share = f"{cost(proposal.shape) / cost.full:.3f}"
        lines.append(f"| {name} | {blocks} | {share} | x{factor:g} | {' | '.join(told)} |")
    return "\n".join(lines)
