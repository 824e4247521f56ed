"""Probabilities by name and back."""

import json

import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.space.probabilities import from_json, to_json
from tests.networks import make
from tests.supernets import residual_network, space_of


def random_rows(choices, rng):
    longest = max(len(choice.candidates) for choice in choices)
    rows = np.zeros((len(choices), longest), np.float32)
    for row, choice in enumerate(choices):
        rows[row, : len(choice.candidates)] = rng.dirichlet(np.ones(len(choice.candidates)))
    return rows


def test_round_trip():
    space, rng = space_of(residual_network()), np.random.default_rng(0)
    widths, depths = random_rows(space.searched_units, rng), random_rows(space.searched_stages, rng)
    data = json.loads(json.dumps(to_json(space, widths, depths)))
    unit = space.searched_units[2]
    assert data["widths"][unit.name][str(unit.candidates[1])] == pytest.approx(widths[2, 1])
    for before, after in zip((widths, depths), from_json(space, data), strict=True):
        np.testing.assert_array_equal(before, after)


def test_nothing_to_choose_on_one_axis():
    space = space_of(make("plain"))
    widths = random_rows(space.searched_units, np.random.default_rng(1))
    after = from_json(space, to_json(space, widths, np.zeros((1, 1), np.float32)))
    np.testing.assert_array_equal(after[0], widths)
    np.testing.assert_array_equal(after[1], [[0]])  # one row at least, as everywhere


def test_others_are_refused():
    space, rng = space_of(residual_network()), np.random.default_rng(0)
    data = to_json(space, random_rows(space.searched_units, rng), random_rows(space.searched_stages, rng))
    for other in (space_of(residual_network(num_stages=1)), space_of(residual_network(), width_divisor=4)):
        with pytest.raises(UserError, match=r"the search don.t belong to"):
            from_json(other, data)
