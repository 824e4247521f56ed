"""Grouped convolutions, depth multipliers and group normalisation keep whole groups of channels."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.networks import classify, make


def space_of(body, **options) -> SearchSpace:
    images = keras.Input((8, 8, 3))
    return SearchSpace.from_graph(Graph.from_model(keras.Model(images, classify(body(images)))), **options)


def conv(width: int, name: str, **options):
    return layers.Conv2D(width, 3, padding="same", name=name, **options)


def multiplied(name: str, times: int = 2):
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=times, name=name)


def candidates(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {unit.name: unit.candidates for unit in space.units}


@pytest.mark.parametrize(
    ("filters", "groups", "kept", "read", "made"),
    [
        (24, 6, 8, [*range(8)], [*range(8)]),
        (12, 6, 8, [*range(8)], [*range(4)]),  # fewer filters than channels in a group
        (36, 6, 8, [*range(8)], [*range(12)]),
        (24, 24, 5, [*range(5)], [*range(5)]),
        (48, 24, 5, [*range(5)], [*range(10)]),
    ],
)
def test_a_shape_keeps_whole_groups(filters, groups, kept, read, made):
    space = space_of(lambda x: conv(9, "after")(conv(filters, "grouped", groups=groups)(conv(24, "a")(x))))
    assert space.unit["a"].step == 24 // groups
    assert all(width % space.unit["a"].step == 0 for width in space.unit["a"].candidates)
    shape = dataclasses.replace(Shape.full(space), widths={"a": kept, "after": 9})
    active = ActiveChannels(space, shape)
    assert (active.made("a").tolist(), active.made("grouped").tolist()) == (read, made)
    layer = build_student(space, shape).get_layer("grouped")
    assert (layer.filters, layer.groups) == (len(made), kept // (24 // groups))


def test_widths_between_groups_are_refused():
    space = space_of(lambda x: conv(12, "grouped", groups=3)(conv(12, "a")(x)))
    with pytest.raises(UserError, match=r"`shape`: widths.a: expected a multiple of 4.*Received: 6"):
        dataclasses.replace(Shape.full(space), widths={"a": 6}).check(space)


def test_groups_and_divisors_add_up():
    body = lambda x: conv(24, "grouped", groups=4)(conv(24, "a")(x))  # noqa: E731
    assert candidates(space_of(body)) == {"a": (6, 12, 18, 24)}
    assert candidates(space_of(body, width_divisor=4)) == {"a": (12, 24)}


def test_what_is_coupled_or_read_by_two_groups_keeps_multiples_of_both():
    def body(x):
        x = layers.Multiply()([conv(24, "a")(x), conv(24, "b")(x)])
        return layers.Concatenate()([conv(24, "g", groups=12)(x), conv(24, "h", groups=8)(x)])

    assert candidates(space_of(body)) == {"a": (6, 12, 18, 24)}


def test_a_group_may_not_span_two_layers():
    def body(x, a: int, b: int):
        return conv(12, "g", groups=4)(layers.Concatenate()([conv(a, "a")(x), conv(b, "b")(x)]))

    assert candidates(space_of(lambda x: body(x, 6, 6))) == {"a": (3, 6), "b": (3, 6)}
    space = space_of(lambda x: conv(9, "free")(body(x, 5, 7)))
    assert list(space.unit) == ["free"]
    assert "fall evenly into the groups of `g`" in space.frozen["a"]
    assert "whole groups" in space.frozen["g"]


def test_groups_of_multiplied_channels():
    """Groups of 6 channels are groups of 2 channels before a multiplier of 3."""
    space = space_of(lambda x: conv(8, "g", groups=4)(multiplied("m", 3)(conv(8, "a")(x))))
    assert candidates(space) == {"a": (2, 4, 6, 8)}
    active = ActiveChannels(space, dataclasses.replace(Shape.full(space), widths={"a": 4}))
    assert (len(active.made("m")), len(active.made("g"))) == (12, 4)


@pytest.mark.parametrize(("groups", "step", "kept"), [(4, 6, 12), (8, 3, 9), (24, 1, 5)])
def test_normalised_groups_stay_whole(groups, step, kept):
    space = space_of(lambda x: layers.GroupNormalization(groups, name="norm")(conv(24, "a")(x)))
    assert space.unit["a"].step == step
    student = build_student(space, dataclasses.replace(Shape.full(space), widths={"a": kept}))
    norm = student.get_layer("norm")
    assert norm.input.shape[-1] == kept
    assert norm.groups in (kept // step, -1 if step == 1 else None)


def test_an_order_moves_whole_groups():
    space = space_of(lambda x: multiplied("m")(conv(12, "g", groups=3)(conv(6, "a")(x))))
    order = {"a": np.array([2, 3, 4, 5, 0, 1])}
    active = ActiveChannels(space, dataclasses.replace(Shape.full(space), widths={"a": 4}), order)
    assert active.made("g").tolist() == [*range(4, 12)]
    assert active.made("m").tolist() == [*range(8, 24)]


def test_equal_multiples_may_meet_and_others_are_frozen():
    def body(x, times: int):
        stem = conv(12, "stem")(x)
        return layers.Add()([multiplied("m")(conv(6, "a")(stem)), multiplied("n", times)(conv(12 // times, "b")(stem))])

    assert space_of(lambda x: body(x, 2)).unit["a"].coupled_with == ("b",)
    space = space_of(lambda x: body(x, 4))
    assert list(space.unit) == ["stem"]
    assert "different layouts" in space.frozen["a"]


def test_blocks_that_end_in_multiples_can_be_dropped_only():
    def body(x):
        x = conv(8, "stem")(x)
        for block in range(2):
            x = layers.Add()([x, multiplied(f"m{block}")(conv(4, f"a{block}")(x))])
        return conv(5, "free")(x)

    space = space_of(body)
    assert ([stage.blocks for stage in space.stages], list(space.unit)) == ([2], ["free"])


# What was saved before these layers were searched.


@pytest.mark.parametrize("name", ["u_net", "grouped", "multiplied", "normalised"])
def test_shapes_of_an_older_version_still_fit(name):
    graph = Graph.from_model(make(name))
    older = SearchSpace.from_graph(graph.with_older_kinds[-1], may_be_fixed=True)
    assert older.graph.digest == graph.digest
    assert any(node.kind is Kind.OPAQUE for node in older.graph)
    shape, today = Shape.smallest(older), SearchSpace.from_graph(graph)
    assert set(shape.widths) < set(today.unit)
    space = SearchSpace.from_graph(graph, units=shape.widths)
    shape.check(space)
    assert build_student(space, shape).count_params() == build_student(older, shape).count_params()
    assert set(SearchSpace.from_graph(graph, units=today.unit).unit) == set(today.unit)


def test_shapes_from_before_normalised_groups_were_searched_still_fit():
    """Transposed convolutions were searched earlier."""
    images = keras.Input((8, 8, 3))
    x = layers.GroupNormalization(4)(layers.Conv2D(12, 3, name="a")(images))
    x = layers.Conv2DTranspose(10, 2, strides=2, name="b")(x)
    graph = Graph.from_model(keras.Model(images, classify(layers.Conv2D(8, 3, name="c")(x))))
    between, first = (SearchSpace.from_graph(older) for older in graph.with_older_kinds)
    assert [set(space.unit) for space in (between, first)] == [{"b", "c"}, {"c"}]
    for older in (between, first):
        shape = Shape.smallest(older)
        space = SearchSpace.from_graph(graph, units=shape.widths)
        shape.check(space)
        assert set(space.unit) == set(older.unit)


def _activated(x):
    return layers.Conv2D(6, 3, activation=layers.ReLU(), name="kept")(x)


def _resized(x):
    return keras.ops.image.resize(layers.Conv2D(6, 3, name="kept")(x), (4, 4))


@pytest.mark.parametrize("end", [_activated, _resized])
def test_shapes_of_layers_that_once_kept_their_width_still_fit(end):
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(end(layers.Conv2D(8, 3, padding="same", name="first")(images)))
    graph = Graph.from_model(keras.Model(images, layers.Dense(2)(x)))
    older = SearchSpace.from_graph(graph.with_older_kinds[-1])
    assert (set(older.unit), set(SearchSpace.from_graph(graph).unit)) == ({"first"}, {"first", "kept"})
    assert older.graph.digest == graph.digest
    shape = Shape.smallest(older)
    space = SearchSpace.from_graph(graph, units=shape.widths)
    shape.check(space)
    assert build_student(space, shape).get_layer("kept").filters == 6
