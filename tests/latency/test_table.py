"""Tables of measured latencies that were damaged."""

import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.latency.measure import Target
from tas_tf.latency.table import LatencyTable, digest_of
from tests.digits import tiny_space

TARGET = Target("fp32", 1)


@pytest.fixture
def path(tmp_path):
    """A table of three shapes of a network."""
    space = tiny_space()
    LatencyTable(
        network=space.graph.network,
        digest=digest_of(space, TARGET),
        format="fp32",
        threads=1,
        runtime="some",
        device="some",
        full_ms=2.0,
        noise=0.01,
        widths=np.array([[max(unit.candidates) for unit in space.units]] * 3),
        depths=np.array([[max(stage.candidates) for stage in space.stages]] * 3),
        ratios=np.array([1.0, 0.8, 0.5]),
    ).save(tmp_path / "latency.json")
    return tmp_path / "latency.json"


def test_a_whole_table_is_read(path):
    table = LatencyTable.load(path)
    table.check(tiny_space(), TARGET)
    assert table.ratios.tolist() == [1.0, 0.8, 0.5]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("version", lambda value: 7, "`version` must be"),
        ("widths", lambda value: [[str(count) for count in row] for row in value], "`widths` must be numbers"),
        ("widths", lambda value: [[count + 0.5 for count in row] for row in value], "`widths` must be numbers"),
        ("widths", lambda value: value[0], "`widths` must be numbers"),
        ("depths", lambda value: value[:2], "of the same shapes"),
        ("ratios", lambda value: ["x"] * 3, "`ratios` must be numbers"),
        ("ratios", lambda value: [1.0, -1.0, 0.5], "must be above 0"),
        ("ratios", lambda value: [], "of the same shapes"),
        ("full_ms", lambda value: None, "isn't a table"),
        ("noise", lambda value: float("nan"), "`noise` must be at least 0"),
        ("noise", lambda value: -0.1, "`noise` must be at least 0"),
        ("threads", lambda value: float("inf"), "isn't a table"),
    ],
)
def test_what_is_no_table_is_told(path, name, change, message):
    content = read_json(path)
    write_json(path, {**content, name: change(content[name])})
    with pytest.raises(UserError, match=message):
        LatencyTable.load(path)


def test_a_single_shape_is_no_table(path):
    """By itself, a model of it would be exact."""
    content = read_json(path)
    write_json(path, {**content, **{name: content[name][:1] for name in ("widths", "depths", "ratios")}})
    with pytest.raises(UserError, match="a single shape says nothing about others"):
        LatencyTable.load(path).check(tiny_space(), TARGET)


@pytest.mark.parametrize(("name", "add"), [("widths", 1000), ("widths", -1000), ("depths", 100), ("depths", -100)])
def test_shapes_that_the_network_does_not_have_are_told(path, name, add):
    content = read_json(path)
    write_json(path, {**content, name: (np.array(content[name]) + add).tolist()})
    with pytest.raises(UserError, match="widths or depths that the network doesn't have"):
        LatencyTable.load(path).check(tiny_space(), TARGET)
