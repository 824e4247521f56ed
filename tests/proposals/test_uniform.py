import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.proposals.uniform import depth_choices, uniform_shape
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.parts import slow_except


@pytest.fixture(scope="module")
def cost() -> CostModel:
    return CostModel(SearchSpace.from_model(load_network("resnet20", image_size=16)))


def places(space: SearchSpace) -> dict[str, float]:
    """Three resolutions: stem and first stage, second stage, third stage."""
    return {unit.name: {"stage2": 0.0, "stage3": 1.0}.get(unit.name.split("_")[0], -1.0) for unit in space.units}


@pytest.mark.parametrize(
    ("depths", "tilt"),
    slow_except(
        itertools.product([(3, 3, 3), (1, 2, 3)], [-0.4, 0.0, 0.3]),
        [((3, 3, 3), -0.4), ((1, 2, 3), 0.0), ((1, 2, 3), 0.3)],
    ),
)
def test_widest_within_the_budget(cost, depths, tilt):
    space, limit = cost.space, cost.full // 4
    shape = uniform_shape(cost, limit=limit, depths=depths, tilt=tilt)
    assert tuple(shape.depths.values()) == depths
    assert cost(shape) <= limit

    def at(factor: float) -> Shape:
        """Straight from the definition."""
        shares = {name: min(1.0, factor * math.exp(tilt * place)) for name, place in places(space).items()}
        widths = [max(1, math.floor(unit.width * shares[unit.name] + 1e-9)) for unit in space.units]
        return Shape.from_counts(space, widths, depths)

    found = max((at(factor) for factor in np.arange(0.3, 1, 0.0005) if cost(at(factor)) <= limit), key=cost)
    assert cost(shape) >= cost(found)
    assert any(at(factor) == shape for factor in np.arange(0.3, 1, 0.0001))


def test_tilts_move_filters_between_stages(cost):
    def early_share(tilt: float) -> float:
        widths = uniform_shape(cost, limit=cost.full // 2, tilt=tilt).widths
        return widths["stem"] / widths["stage3_block1_conv2"]

    assert early_share(-0.3) > early_share(0.0) > early_share(0.3)


@pytest.mark.parametrize("share", [0.15, 0.25, 0.5])
def test_what_is_left_of_the_budget_is_spent(share):
    space = SearchSpace.from_model(load_network("resnet20", image_size=16), couple_trunk=True)
    cost = CostModel(space)
    limit = int(share * cost.full)
    plain, filled = (uniform_shape(cost, limit=limit, fill=fill) for fill in (False, True))
    assert cost(plain) < cost(filled) <= limit
    beyond = next(
        shape
        for factor in np.arange(0.05, 1, 0.0005)
        if cost(shape := Shape.from_counts(space, [int(unit.width * factor) for unit in space.units], [3, 3, 3]))
        > limit
    )
    for name, width in filled.widths.items():
        assert width in (plain.widths[name], beyond.widths[name])
        if width < beyond.widths[name]:
            assert cost(replace(filled, widths={**filled.widths, name: beyond.widths[name]})) > limit


def test_widths_are_multiples_of_the_divisor(cost):
    shape = uniform_shape(cost, limit=cost.full // 3, divisor=4, tilt=0.2)
    assert all(width % 4 == 0 for width in shape.widths.values())


def test_out_of_reach(cost):
    with pytest.raises(UserError, match="can't be reached with uniform widths"):
        uniform_shape(cost, limit=10)


def test_all_depths_if_there_are_few(cost):
    choices = depth_choices(cost.space, 27)
    assert sorted(choices) == sorted(itertools.product((1, 2, 3), repeat=3))
    assert [sum(depths) for depths in choices] == sorted(map(sum, choices), reverse=True)


@pytest.mark.parametrize("most", slow_except([2, 5, 9], [5]))
def test_a_selection_of_depths_if_there_are_many(most):
    space = SearchSpace.from_model(load_network("resnet56", image_size=8))
    choices = depth_choices(space, most)
    assert len(set(choices)) == len(choices) <= most
    assert choices[0] == (9, 9, 9)
    assert (1, 1, 1) in choices
    for depths in choices:
        assert all(depth in stage.candidates for depth, stage in zip(depths, space.stages, strict=True))
    if most == 9:  # enough for shapes that are shallow early, and shapes that are shallow late
        assert any(early < late for early, _, late in choices)
        assert any(early > late for early, _, late in choices)
