import numpy as np
import pytest

from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import smallest_shape
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_space


@pytest.fixture(scope="module")
def cost() -> CostModel:
    return CostModel(SearchSpace.from_graph(Graph.from_model(load_network("resnet20"))))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75, 1.0])
def test_uniform_is_the_largest_factor_that_fits(cost, share):
    limit = int(share * cost.full)
    shape = baseline_shape("uniform", cost, limit=limit, tolerance=0)
    assert all(shape.depths[stage.name] == stage.blocks for stage in cost.space.stages)
    assert cost(shape) <= limit

    def at(factor: float) -> Shape:
        """Straight from the definition."""
        widths = [max(1, int(unit.width * factor + 1e-9)) for unit in cost.space.units]
        return Shape.from_counts(cost.space, widths, [stage.blocks for stage in cost.space.stages])

    factors = np.arange(64, 0, -1) / 64
    best = next(at(factor) for factor in factors if cost(at(factor)) <= limit)
    assert cost(shape) >= cost(best)
    assert len({round(shape.widths[unit.name] / unit.width, 1) for unit in cost.space.units}) <= 2


@pytest.mark.parametrize(("share", "tolerance"), [(0.25, 0.05), (0.5, 0.01), (0.97, 0.01), (0.1, 0.01)])
def test_random_is_near_the_budget_and_follows_the_seed(cost, share, tolerance):
    limit, below = int(share * cost.full), int(tolerance * cost.full)
    shapes = [baseline_shape("random", cost, limit=limit, tolerance=below, seed=seed) for seed in (0, 0, 1)]
    assert all(limit - below <= cost(shape) <= limit for shape in shapes)
    assert shapes[0] == shapes[1] != shapes[2]
    assert all(shapes[0].widths[unit.name] in unit.candidates for unit in cost.space.units)


def test_params_count_as_well():
    cost = CostModel(tiny_space(), "params")
    for kind in ("uniform", "random"):
        shape = baseline_shape(kind, cost, limit=cost.full // 2, tolerance=cost.full // 5)
        assert cost(shape) <= cost.full // 2


def test_out_of_reach(cost):
    lowest = cost(smallest_shape(cost))
    assert cost(baseline_shape("random", cost, limit=lowest, tolerance=0)) == lowest
    for kind in ("uniform", "random"):
        with pytest.raises(UserError, match="can reach"):
            baseline_shape(kind, cost, limit=lowest - 1, tolerance=0)
    with pytest.raises(UserError, match="`kind` must be one of uniform, random"):
        baseline_shape("best", cost, limit=lowest, tolerance=0)
