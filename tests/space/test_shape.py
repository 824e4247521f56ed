import dataclasses
import json

import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import ActiveChannels, Shape, dropped_nodes
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.networks import make


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(load_network("resnet20", image_size=8)))


def test_json_round_trip(space, tmp_path):
    shape = Shape.random(space, 3)
    data = shape.to_json()
    assert set(data) == {"version", "network", "graph_digest", "widths", "depths"}
    assert set(data["widths"]) == {unit.name for unit in space.units}
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(data))
    assert Shape.load(path) == shape
    shape.check(space)


def test_random_shapes_take_candidates_and_depend_on_the_seed(space):
    shapes = [Shape.random(space, seed) for seed in range(30)]
    for unit in space.units:
        assert {shape.widths[unit.name] for shape in shapes} <= set(unit.candidates)
    for stage in space.stages:
        assert {shape.depths[stage.name] for shape in shapes} == set(stage.candidates)
    assert shapes[0] == Shape.random(space, 0)
    assert len({tuple(shape.widths.values()) for shape in shapes}) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "here: version: expected 1. Received: 2"),
        ({"network": None}, "here: network: expected a string. Received: None"),
        ({"graph_digest": 7}, "here: graph_digest: expected a string"),
        ({"widths": [3]}, r"here: widths: expected an object.*\[3\]"),
        ({"widths": {"stem": 0}}, "here: widths.stem: expected a whole number, at least 1. Received: 0"),
        ({"widths": {"stem": 3.0}}, "here: widths.stem: .*3.0"),
        ({"widths": {"stem": True}}, "here: widths.stem: .*True"),
        ({"widths": {"stem": "3"}}, "here: widths.stem: .*'3'"),
        ({"depths": {"stage_1": -1}}, "here: depths.stage_1: .*-1"),
        ({"more": 1}, "here: expected an object with the keys depths, .*Received: .*more"),
    ],
)
def test_errors_in_json_name_their_place(space, change, message):
    with pytest.raises(UserError, match=message):
        Shape.from_json({**Shape.full(space).to_json(), **change}, where="here")


@pytest.mark.parametrize("data", [[], 3, None, {"widths": {}}])
def test_what_is_no_shape_is_refused(data):
    with pytest.raises(UserError, match="expected an object with the keys"):
        Shape.from_json(data)


@pytest.mark.parametrize(("content", "message"), [(None, "can't read"), ("{", "not JSON"), ("\xff", "not JSON")])
def test_unreadable_files_are_refused(tmp_path, content, message):
    path = tmp_path / "shape.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"{message}|{path}"):
        Shape.load(path)


@pytest.mark.parametrize(
    ("widths", "depths", "message"),
    [
        ({"stem": 17}, {}, "widths.stem: expected 1 to 16. Received: 17"),
        ({"stem": None}, {}, "widths.stem is missing. Expected 1 to 16"),
        ({"stern": 3}, {}, "widths.stern is unknown to resnet20"),
        ({}, {"stage_2": 4}, "depths.stage_2: expected 1 to 3. Received: 4"),
        ({}, {"stage_9": 1}, "depths.stage_9 is unknown"),
        ({}, {"stage_1": None}, "depths.stage_1 is missing"),
    ],
)
def test_a_shape_that_does_not_fit_names_the_place(space, widths, depths, message):
    full = Shape.full(space)

    def changed(counts, change):
        return {name: count for name, count in {**counts, **change}.items() if count is not None}

    shape = dataclasses.replace(full, widths=changed(full.widths, widths), depths=changed(full.depths, depths))
    with pytest.raises(UserError, match=message):
        shape.check(space)


def test_a_shape_of_another_network_is_refused(space):
    other = SearchSpace.from_graph(Graph.from_model(load_network("resnet20", image_size=16)))
    with pytest.raises(UserError, match=f"another network.*{other.graph.digest}.*{space.graph.digest}"):
        Shape.full(other).check(space)


def test_a_shape_without_digest_goes_by_name(space):
    shape = dataclasses.replace(Shape.full(space), graph_digest="")
    shape.check(space)
    with pytest.raises(UserError, match=r"resnet32.*resnet20"):
        dataclasses.replace(shape, network="resnet32").check(space)


def test_active_channels_of_a_concat_and_of_flattened_images():
    space = SearchSpace.from_graph(Graph.from_model(make("concat")))
    active = ActiveChannels(space, Shape.from_counts(space, [3, 2, 1, 4], []))
    last = [node.name for node in space.graph if node.class_name == "Concatenate"][-1]
    np.testing.assert_array_equal(active.made(last), [0, 1, 2, 8, 9, 12, 16, 17, 18, 19])

    space = SearchSpace.from_graph(Graph.from_model(make("flatten")))
    active = ActiveChannels(space, Shape.from_counts(space, [1, 2], []))
    (flat,) = [node.name for node in space.graph if node.class_name == "Flatten"]
    np.testing.assert_array_equal(active.made(flat), [5 * place + kept for place in range(16) for kept in (0, 1)])


def test_behind_a_stage_the_last_block_kept_counts(space):
    last = space.stages[0].ends[-1]
    widths = dict(Shape.full(space).widths, stage1_block1_conv2=5, stage1_block2_conv2=7, stage1_block3_conv2=9)
    for depth, width in ((1, 5), (2, 7), (3, 9)):
        shape = dataclasses.replace(
            Shape.full(space), widths=widths, depths={"stage_1": depth, "stage_2": 3, "stage_3": 3}
        )
        active = ActiveChannels(space, shape)
        assert len(active.read(last)) == width
        assert len(active.made(last)) == 9
        dropped, rewired = dropped_nodes(space, shape)
        assert {name[:13] for name in dropped} == {f"stage1_block{block}" for block in range(depth + 1, 4)}
        assert rewired == ({last: f"stage1_block{depth}_relu2"} if depth < 3 else {})
