"""The projections that shapes make necessary, and their share of the cost."""

import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.projections import projected_share, projections
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.resnet_cifar import resnet_cifar


@pytest.fixture(scope="module")
def bottlenecks():
    return resnet_cifar(29, bottleneck=True)


def test_the_share_is_that_of_the_projections_built(bottlenecks):
    """By the list of projections, on shapes of other seeds."""
    for model in (resnet_cifar(20), bottlenecks):
        space = SearchSpace.from_model(model, couple_trunk=False)
        cost = CostModel(space)
        shares = []
        for seed in range(200):
            shape = Shape.random(space, seed)
            shares.append(sum(entry["macs"] for entry in projections(space, shape)) / cost(shape))
        assert projected_share(space) == pytest.approx(sum(shares) / len(shares), rel=0.15)


def test_coupled_bottlenecks_need_few(bottlenecks):
    free, coupled = (SearchSpace.from_model(bottlenecks, couple_trunk=given) for given in (False, True))
    assert projected_share(free) > 0.2
    assert projected_share(coupled) < 0.05
