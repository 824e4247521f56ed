import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.proposals.drawn import drawn_proposals
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.digits import tiny_space


@pytest.fixture(scope="module")
def cost() -> CostModel:
    return CostModel(SearchSpace.from_model(load_network("resnet14", image_size=8)))


def probabilities(cost: CostModel) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return tuple(table.draw_probabilities(rng) for table in (cost.space.width_choices, cost.space.depth_choices))


def test_the_kept_shape_first_then_different_ones_within_the_budget(cost):
    widths, depths = probabilities(cost)
    limit = cost.full // 3
    best = decode(cost, widths, depths, limit=limit, tolerance=limit // 50)
    found = drawn_proposals(cost, best, (widths, depths), limit=limit, count=4, seed=3)
    assert [one.name for one in found] == ["search", "search 2", "search 3", "search 4"]
    assert found[0].shape == best
    assert all(cost(one.shape) <= limit for one in found)
    assert len({str(one.shape.to_json()) for one in found}) == 4
    assert found == drawn_proposals(cost, best, (widths, depths), limit=limit, count=4, seed=3)
    assert found != drawn_proposals(cost, best, (widths, depths), limit=limit, count=4, seed=4)


@pytest.mark.slow
def test_draws_follow_the_probabilities(cost):
    """The more probable a depth, the more shapes have it."""

    def share_of_one_block(probability: float) -> float:
        widths, depths = probabilities(cost)
        depths[0, :2] = (probability, 1 - probability)
        options = {"limit": cost.full // 2, "count": 60, "seed": 0}
        best = decode(cost, widths, depths, limit=options["limit"])
        found = drawn_proposals(cost, best, (widths, depths), **options)
        return np.mean([one.shape.depths["stage_1"] == 1 for one in found])

    likely, even, unlikely = map(share_of_one_block, (0.98, 0.5, 0.02))
    assert likely > even > unlikely
    assert likely > 0.8
    assert unlikely < 0.2


def test_a_small_space_has_few_shapes():
    cost = CostModel(tiny_space(axes="depth"))
    depths = np.array([[0.5, 0.5]])
    best = decode(cost, np.ones((1, 1)), depths, limit=cost.full)
    found = drawn_proposals(cost, best, (np.ones((1, 1)), depths), limit=cost.full, count=9)
    assert len(found) <= 2
