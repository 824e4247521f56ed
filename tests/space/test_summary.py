from dataclasses import replace

from tas_tf.space.shape import Shape
from tas_tf.space.summary import summarise_shape
from tests.digits import tiny_space


def test_widths_depths_and_dropped_blocks():
    space = tiny_space()
    full = Shape.full(space)
    stage = space.stages[0]
    unit = space.units[0]
    shape = replace(full, widths={**full.widths, unit.name: unit.candidates[0]}, depths={**full.depths, stage.name: 1})
    summary = summarise_shape(space, shape)
    assert [(one["name"], one["width"], one["kept"]) for one in summary["units"]] == [
        (one.name, one.width, shape.widths[one.name]) for one in space.units
    ]
    assert summary["stages"] == [
        {"name": one.name, "blocks": one.blocks, "kept": shape.depths[one.name]} for one in space.stages
    ]
    # A unit is dropped if all layers that make its channels lie in blocks behind the first of the stage.
    expected = {
        one.name
        for one in space.units
        if all(
            space.block_of.get(member, ("", 0))[0] == stage.name and space.block_of[member][1] > 1
            for member in one.members
        )
    }
    assert {one["name"] for one in summary["units"] if one["dropped"]} == expected != set()
    assert not any(one["dropped"] for one in summarise_shape(space, full)["units"])
