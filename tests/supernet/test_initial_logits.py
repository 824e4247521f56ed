import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.graph.graph import Graph
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.supernet.initial_logits import lean_towards_budget
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_space
from tests.supernets import freeze


@pytest.fixture(scope="module")
def started():
    """A supernet, its space, and its logits at the start."""
    space = SearchSpace.from_graph(Graph.from_model(load_network("resnet14", image_size=8)))
    supernet = build_supernet(space)
    return supernet, space, [np.array(logits) for logits in supernet.architecture_variables]


@pytest.mark.parametrize("kind", ["macs", "params", "bytes"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_expected_cost_is_the_budget(started, kind, share):
    supernet, space, start = started
    for logits, value in zip(supernet.architecture_variables, start, strict=True):
        logits.assign(value)
    expected_cost = ExpectedCost(CostModel(space, kind))
    reached = lean_towards_budget(supernet, expected_cost, share)
    assert reached == pytest.approx(share, rel=0.02)
    assert float(expected_cost(*supernet.gates.probabilities())) == pytest.approx(share, rel=0.02)


def test_out_of_reach_means_as_near_as_possible():
    space = tiny_space()
    supernet, cost = build_supernet(space), CostModel(space)
    assert lean_towards_budget(supernet, ExpectedCost(cost), 1.5) == pytest.approx(1.0, rel=1e-3)
    smallest = [variable.numpy().argmax() for variable in supernet.architecture_variables]
    assert smallest == [len(choice.candidates) - 1 for choice in (*space.units, *space.stages)]


def test_choices_keep_their_own_start_and_frozen_ones_stay():
    space = tiny_space()
    supernet, untouched = build_supernet(space, seed=1), build_supernet(space, seed=1)
    freeze(supernet.gates, ["stem"])
    lean_towards_budget(supernet, ExpectedCost(CostModel(space)), 0.8)
    pairs = zip(supernet.gates.width_logits, untouched.gates.width_logits, space.units, strict=True)
    moved = [np.array(one) - np.array(other) for one, other, _ in pairs]
    assert not moved[0].any()
    slopes = [shift / (np.array(unit.candidates) / unit.width) for shift, unit in zip(moved, space.units, strict=True)]
    np.testing.assert_allclose(np.concatenate(slopes[1:]), slopes[1][0], rtol=1e-3)
    assert slopes[1][0] > 0.1
