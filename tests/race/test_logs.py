"""Logs of a race, read as TensorBoard reads them."""

import math

import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.lap import Lap
from tas_tf.race.logs import RaceSummaries, standings
from tas_tf.space.shape import Shape
from tests.digits import tiny_space
from tests.events import read_events

COST = CostModel(tiny_space())
WIDE = Proposal("uniform 2", Shape.full(COST.space))
NARROW = Proposal("smallest", Shape.smallest(COST.space))


def lap(proposal: Proposal, number: int, loss: float, factor: float = 0.5) -> Lap:
    return Lap(proposal, number, factor, 3, loss, "accuracy", 0.5, 1.0)


def test_a_run_for_each_shape_and_standings_after_each_lap(tmp_path):
    write = RaceSummaries(tmp_path, COST)
    write(lap(WIDE, 1, 2.0), True)  # run before an interruption
    write(lap(NARROW, 1, 1.0), False)
    write(lap(NARROW, 2, 0.5), False)
    write.close()
    assert {folder.name for folder in (tmp_path / "race").iterdir()} == {"smallest_rate_x0.5", "standings"}
    found = read_events(tmp_path / "race" / "smallest_rate_x0.5")
    assert [(step, float(loss)) for step, loss in found["race/held_out_loss"]] == [(1, 1.0), (2, 0.5)]
    assert [step for step, _ in found["race/held_out_accuracy"]] == [1, 2]
    found = read_events(tmp_path / "race" / "standings")
    assert [step for step, _ in found["race/standings"]] == [2, 3]
    text = found["race/standings"][-1][1].item().decode()
    assert text.index("| smallest |") < text.index("| uniform 2 |")
    _, encoded = found["race/shapes"][-1]
    assert np.ptp(tf.io.decode_png(encoded[2]).numpy()) > 0


def test_who_came_furthest_stands_first_and_then_the_lower_loss():
    laps = [lap(WIDE, 1, 2.0), lap(NARROW, 1, 1.0), lap(WIDE, 1, math.inf, factor=1.0), lap(WIDE, 2, 0.5)]
    share = COST(NARROW.shape) / COST.full
    assert standings(laps, COST).splitlines() == [
        "| shape | blocks | macs | learning rate | loss in round 1 | loss in round 2 |",
        "|---|---|---|---|---|---|",
        "| uniform 2 | 2 | 1.000 | x0.5 | 2.0000 | 0.5000 |",
        f"| smallest | 1 | {share:.3f} | x0.5 | 1.0000 |  |",
        "| uniform 2 | 2 | 1.000 | x1 | inf |  |",
    ]
