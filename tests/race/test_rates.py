"""The learning rate that a race goes on with, and what is said of it."""

import math

import pytest

from tas_tf.proposals.shortlist import Proposal
from tas_tf.race.lap import Lap
from tas_tf.race.rates import choose_rate
from tas_tf.space.shape import Shape


def laps(losses: dict[float, float]) -> list[Lap]:
    proposal = Proposal("uniform", Shape("tiny", "", {}, {}))
    return [Lap(proposal, 1, factor, 10, loss, "accuracy", 0.5, 1.0) for factor, loss in losses.items()]


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({0.25: 0.7493, 0.5: 0.7393, 1.0: 0.9}, 1),  # the best
        ({0.25: 0.7493, 0.5: 0.9, 1.0: math.inf}, 0),  # the others do much worse
        ({0.25: -0.8852, 0.5: -0.8969}, 1),  # losses of the user's own may be negative
        ({0.25: -0.9, 0.5: -0.8, 1.0: 0.9}, 0),
        ({0.25: 0.0, 0.5: 0.01}, 0),
    ],
)
def test_nothing_is_said_of_the_best_rate(losses, chosen):
    assert choose_rate(laps(losses)) == (chosen, "")


def test_it_is_said_why_a_rate_that_is_not_the_best_goes_on():
    assert choose_rate(laps({0.25: -0.9, 0.5: -0.85, 1.0: -0.5}))[0] == 1
    index, why = choose_rate(laps({0.25: 0.7493, 0.5: 0.7864, 1.0: 0.9}))
    assert index == 1
    assert why.startswith("learning rate x0.5 goes on: nearly as good as x0.25 (loss 0.786 and 0.749), and higher")
