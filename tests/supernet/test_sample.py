"""Explicit samples: their array form, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.supernet.sample import Sample
from tests.supernets import residual_network, space_of


@pytest.fixture(scope="module")
def space():
    return space_of(residual_network())


def test_one_hot_picks_the_shapes_candidates(space):
    shape = Shape.random(space, 3)
    sample = Sample.one_hot(space, shape)
    for unit in space.searched_units:
        ((index,), weights) = sample.widths[unit.name]
        assert unit.candidates[index] == shape.widths[unit.name]
        assert weights == (1.0,)
    for stage in space.searched_stages:
        chances = sample.depths[stage.name]
        assert sum(chances) == 1.0
        assert stage.candidates[chances.index(1.0)] == shape.depths[stage.name]


def test_arrays_follow_the_order_of_the_space(space):
    units, stages = space.searched_units, space.searched_stages
    widths = {unit.name: ((row % 2, len(unit.candidates) - 1), (0.25, 0.75)) for row, unit in enumerate(units)}
    widths[units[0].name] = ((1,), (1.0,))  # fewer drawn than elsewhere
    depths = {stage.name: tuple(np.full(len(stage.candidates), 1 / len(stage.candidates))) for stage in stages}
    # Neither mapping needs to be in order.
    indices, weights, chances = Sample(dict(reversed(widths.items())), dict(reversed(depths.items()))).arrays(space)
    assert indices.dtype == np.int32
    assert weights.dtype == chances.dtype == np.float32
    np.testing.assert_array_equal(indices[0], [1, 0])
    np.testing.assert_array_equal(weights[0], [1.0, 0.0])
    for row, unit in enumerate(units[1:], 1):
        np.testing.assert_array_equal(indices[row], [row % 2, len(unit.candidates) - 1])
        np.testing.assert_array_equal(weights[row], [0.25, 0.75])
    np.testing.assert_array_equal(chances, 0.5)


def test_spaces_without_units_or_stages():
    only_depths = space_of(residual_network(), axes="depth")
    indices, weights, depths = Sample.one_hot(only_depths, Shape.full(only_depths)).arrays(only_depths)
    assert indices.shape == weights.shape == (1, 1)
    np.testing.assert_array_equal(depths, [[0, 1], [0, 1]])
    only_widths = space_of(residual_network(), axes="width")
    _, _, depths = Sample.one_hot(only_widths, Shape.full(only_widths)).arrays(only_widths)
    np.testing.assert_array_equal(depths, [[0]])


def test_shapes_off_the_candidates_are_refused(space):
    full = Shape.full(space)
    odd = dataclasses.replace(full, widths={**full.widths, "stem": 1})
    with pytest.raises(UserError, match="stem keeps 1, which is not a candidate"):
        Sample.one_hot(space, odd)
    only_depths = space_of(residual_network(), axes="depth")
    narrow = Shape.from_counts(only_depths, [4] * len(only_depths.units), [1, 1])
    with pytest.raises(UserError, match="not a candidate"):
        Sample.one_hot(only_depths, narrow)


@pytest.mark.parametrize(
    ("widths", "depths", "match"),
    [
        ({"stem": None}, {}, "widths.stem is missing"),
        ({"unheard": ((0,), (1.0,))}, {}, "widths.unheard is not searched"),
        ({}, {"stage_1": None}, "depths.stage_1 is missing"),
        ({"stem": ((0, 99), (0.5, 0.5))}, {}, "widths.stem: expected indices from 0 to"),
        ({"stem": ((-1,), (1.0,))}, {}, "widths.stem: expected"),
        ({"stem": ((0, 1), (1.0,))}, {}, "a weight for each"),
        ({"stem": ((), ())}, {}, "a weight for each"),
        ({}, {"stage_2": (1.0,)}, "depths.stage_2: expected 2 weights"),
    ],
)
def test_samples_that_do_not_fit_are_refused(space, widths, depths, match):
    fitting = Sample.one_hot(space, Shape.full(space))
    changed = [
        {name: value for name, value in {**own, **other}.items() if value is not None}
        for own, other in ((fitting.widths, widths), (fitting.depths, depths))
    ]
    with pytest.raises(UserError, match=match):
        Sample(*changed).arrays(space)
