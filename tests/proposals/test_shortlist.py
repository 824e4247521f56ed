import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.proposals.sensitivities import Sensitivities
from tas_tf.proposals.shortlist import Proposal, Proposer
from tas_tf.proposals.uniform import uniform_shape
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize
from tas_tf.student.meter import make_cost
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_space


def flat_damage(space: SearchSpace) -> Sensitivities:
    rows = [
        np.linspace(1, 0, table.longest)[None].repeat(table.num_rows, 0)
        for table in (space.width_choices, space.depth_choices)
    ]
    return Sensitivities(*rows)


@pytest.fixture(scope="module")
def cost() -> CostModel:
    return CostModel(SearchSpace.from_model(load_network("resnet14", image_size=8)))


@pytest.mark.parametrize("count", [1, 2, 4, 8, 12])
def test_different_shapes_within_the_budget_from_all_sources(cost, count):
    limit = cost.full // 4
    shortlist = Proposer(cost, limit, flat_damage(cost.space)).shortlist(count)
    names = [one.name for one in shortlist]
    assert len(shortlist) == count
    assert len({(*one.shape.widths.values(), *one.shape.depths.values()) for one in shortlist}) == count
    assert all(cost(one.shape) <= limit for one in shortlist)
    assert shortlist[0] == Proposal("uniform", uniform_shape(cost, limit=limit, fill=True), 0.0)
    if count >= 8:
        assert {"sensitivities", "early", "late"} < set(names)
        shallower = [one for one in shortlist if one.name.startswith("uniform ")]
        assert len(shallower) >= 4
        for one in shallower:
            assert one.name == f"uniform {'/'.join(map(str, one.shape.depths.values()))}"


def test_shapes_of_a_search_always_enter(cost):
    found = [Proposal("search", Shape.smallest(cost.space))]
    shortlist = Proposer(cost, cost.full // 2).shortlist(2, found)
    assert [one.name for one in shortlist] == ["uniform", "search"]


def test_a_space_with_few_shapes_has_a_short_list():
    cost = CostModel(tiny_space(axes="depth"))
    shortlist = Proposer(cost, cost.full * 9 // 10, flat_damage(cost.space)).shortlist(8)
    assert [one.shape.depths for one in shortlist] == [{"stage_1": 1}]


def test_a_network_without_stages():
    cost = CostModel(tiny_space(axes="width"))
    shortlist = Proposer(cost, cost.full // 2, flat_damage(cost.space)).shortlist(4)
    assert len(shortlist) == 4
    assert all(cost(one.shape) <= cost.full // 2 for one in shortlist)


def test_bytes_are_measured():
    space = tiny_space()
    file_size = FileSize(space, lambda network: 4000 + 4 * network.count_params())
    cost = make_cost(space, "bytes", file_size)
    limit = (file_size(Shape.full(space)) + file_size(Shape.smallest(space))) // 2
    shortlist = Proposer(cost, limit, flat_damage(space), meter=file_size).shortlist(4)
    assert len(shortlist) == 4
    assert all(file_size(one.shape) <= limit for one in shortlist)


def test_out_of_reach(cost):
    with pytest.raises(UserError, match="can't be reached by any proposal"):
        Proposer(cost, 10, flat_damage(cost.space)).shortlist(4)


def test_the_best_depths_and_the_best_tilt_are_combined(cost):
    proposer = Proposer(cost, cost.full // 4, flat_damage(cost.space))
    by_name = {one.name: one for one in proposer.shortlist(12)}
    uniform, shallow, late, least = (by_name[name] for name in ("uniform", "uniform 1/1/2", "late", "sensitivities"))
    further = proposer.combined([least, shallow, late, uniform])
    expected = uniform_shape(cost, limit=cost.full // 4, depths=(1, 1, 2), tilt=late.tilt, fill=True)
    assert (further.name, further.shape, further.depths) == ("late 1/1/2", expected, (1, 1, 2))
    assert cost(further.shape) <= cost.full // 4
    assert proposer.combined([uniform, shallow, late]) is None
    assert proposer.combined([shallow, uniform, late]) is None  # all layers alike is best
    assert proposer.combined([late, uniform, shallow]) is None  # all blocks are best
    assert proposer.combined([least]) is None
