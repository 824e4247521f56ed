"""The latency of shapes as a cost model, on a clock that computes latencies."""

import pytest

import tas_tf
from tas_tf.latency.measure import Target
from tas_tf.latency.table import LatencyTable
from tests.digits import tiny_space


def test_the_latency_of_shapes_for_own_code(clock, tmp_path):
    space, said = tiny_space(), []
    cost = tas_tf.latency_cost(space, {"file_format": "int8"}, say=said.append)
    smallest = tas_tf.Shape.smallest(space)
    assert cost(smallest) / cost.full == pytest.approx(clock.cost(space)(smallest) / clock.cost(space).full, rel=0.3)
    assert tas_tf.Budget.parse("latency:0.5").limit(cost.full) == pytest.approx(cost.full / 2, abs=1)
    assert any("(int8, threads: 1)" in text for text in said)
    timed, table = len(clock.timed), tmp_path / "latency.json"
    LatencyTable.measure(space, Target(threads=2), count=10).save(table)
    there = tas_tf.latency_cost(space, tas_tf.LatencySettings(threads=2, table=str(table)), say=said.append)
    assert there.full == pytest.approx(clock.cost(space).full, rel=1e-6)
    assert len(clock.timed) == timed + 10


def test_what_is_wrong_is_told(clock):
    with pytest.raises(tas_tf.UserError, match="`latency` must have settings among"):
        tas_tf.latency_cost(tiny_space(), {"speed": 1})
    with pytest.raises(tas_tf.UserError, match=r"see `tas_tf\.latency_cost`"):
        tas_tf.CostModel(tiny_space(), "latency")
    assert not clock.timed
