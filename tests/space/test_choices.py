"""The table of candidates: packed, unpacked, drawn."""

import numpy as np
import pytest

from tas_tf.space.choices import ChoiceTable
from tas_tf.space.space import SearchSpace
from tests.networks import make
from tests.supernets import residual_network

TABLE = ChoiceTable(("a", "b"), ((4, 6, 8), (3, 5)))
EMPTY = ChoiceTable((), ())


def test_the_table_is_padded_to_the_longest():
    assert (len(TABLE), TABLE.shape, TABLE.counts.tolist()) == (2, (2, 3), [3, 2])
    np.testing.assert_array_equal(TABLE.table, [[4, 6, 8], [3, 5, 0]])
    assert TABLE.row == {"a": 0, "b": 1}


def test_packing_and_unpacking():
    packed = TABLE.pack([[0.1, 0.2, 0.7], [0.5, 0.5]], fill=-1)
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(packed, np.array([[0.1, 0.2, 0.7], [0.5, 0.5, -1]], np.float32))
    assert [row.tolist() for row in TABLE.unpack(np.arange(6).reshape(2, 3))] == [[0, 1, 2], [3, 4]]
    with pytest.raises(ValueError, match="zip"):
        TABLE.unpack(np.zeros((1, 3)))


def test_without_a_choice_there_is_one_empty_row():
    assert (len(EMPTY), EMPTY.shape) == (0, (1, 1))
    np.testing.assert_array_equal(EMPTY.table, [[0]])
    assert EMPTY.unpack(np.ones((1, 1))) == []
    assert EMPTY.draw(np.random.default_rng(0), 4).shape == (4, 0)


def test_draws_are_even_and_follow_the_seed():
    drawn = TABLE.draw(np.random.default_rng(0), 3000)
    for column, candidates in zip(drawn.T, TABLE.candidates, strict=True):
        values, counts = np.unique(column, return_counts=True)
        assert tuple(values) == candidates
        np.testing.assert_allclose(counts, 3000 / len(candidates), rtol=0.1)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(drawn.T, [rng.choice(candidates, 3000) for candidates in TABLE.candidates])


def test_distributions_are_drawn_for_each_row():
    drawn = TABLE.draw_probabilities(np.random.default_rng(0))
    assert drawn.shape == (2, 3)
    np.testing.assert_allclose(drawn.sum(1), 1)


def test_spaces_have_a_table_of_what_is_searched():
    space = SearchSpace.from_model(residual_network())
    assert space.width_choices.names == tuple(unit.name for unit in space.searched_units)
    assert space.depth_choices.candidates == tuple(stage.candidates for stage in space.searched_stages)
    widths, depths = space.draw(np.random.default_rng(0), 5)
    assert (widths.shape, depths.shape) == ((5, len(space.units)), (5, len(space.stages)))
    assert len(SearchSpace.from_model(make("plain")).depth_choices) == 0
