"""Shapes within a budget that is measured: what is tried, and what happens at the end of a family of shapes."""

import numpy as np
import pytest

from tas_tf.baselines.shapes import affordable_baseline
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode, smallest_shape
from tas_tf.errors import UserError
from tas_tf.proposals.shortlist import Proposer
from tas_tf.proposals.uniform import cheapest_uniform_shape, uniform_shape
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import OnChief, find_within
from tas_tf.zoo.loading import load_network

#: Of all widths: uniform shapes can't be narrow, so that some with fewer blocks cost less.
DIVISOR = 16


class Measured:
    """A meter whose costs are those of the model times a factor, which single shapes may have for themselves."""

    kind = "macs"

    def __init__(self, cost: CostModel, factor: float, *, first: float | None = None, measures: bool = True) -> None:
        self.cost, self.factor, self.first, self.measures = cost, factor, first, measures
        self.known: dict[tuple, int] = {}

    def cost_model(self) -> CostModel:
        return self.cost

    def figures(self) -> dict:
        return {}

    def __call__(self, shape: Shape) -> int:
        factor = self.factor if self.known or self.first is None else self.first
        return self.known.setdefault(shape.counts, round(factor * self.cost(shape)))


@pytest.fixture(scope="module")
def cost() -> CostModel:
    return CostModel(SearchSpace.from_model(load_network("resnet14", image_size=8)))


def find_uniform(cost: CostModel, limit: int, meter: Measured) -> Shape:
    return affordable_baseline("uniform", cost, limit=limit, tolerance=0, meter=meter, divisor=DIVISOR)[0]


def test_uniform_shapes_stay_uniform_where_the_smallest_of_all_would_fit(cost):
    """All blocks cost more than the budget as measured; fewer blocks would cost less, but aren't this baseline."""
    cheapest = cheapest_uniform_shape(cost, divisor=DIVISOR)
    lowest = cost(cheapest)
    assert 1.5 * cost(smallest_shape(cost)) < lowest
    meter = Measured(cost, 1.5)
    message = (
        rf"a shape of this kind can reach\. Expected at least macs:{round(1.5 * lowest)} .*uniform widths.*measured"
    )
    with pytest.raises(UserError, match=message):
        find_uniform(cost, round(1.4 * lowest), meter)
    assert find_uniform(cost, round(1.5 * lowest), meter) == cheapest


def test_one_measurement_far_too_high_leaves_the_kind_as_it_is(cost):
    """It asks for less than the cheapest shape of its kind takes. The next smaller one of that kind is found."""
    limit = cost.full * 9 // 10
    first = uniform_shape(cost, limit=limit, divisor=DIVISOR)
    found = find_uniform(cost, limit, Measured(cost, 1.05, first=9.0))
    assert found == uniform_shape(cost, limit=cost(first) - 1, divisor=DIVISOR) != first
    meter = Measured(cost, 1.05, first=9.0)
    random, spent = affordable_baseline("random", cost, limit=limit, tolerance=limit // 20, meter=meter)
    assert 0.85 * limit < spent == meter(random) <= limit


def test_proposals_that_cannot_be_cheap_enough_stay_out(cost):
    lowest = cost(cheapest_uniform_shape(cost, divisor=DIVISOR))
    meter = Measured(cost, 1.5)
    names = [one.name for one in Proposer(cost, round(1.4 * lowest), meter=meter, divisor=DIVISOR).shortlist(4)]
    assert "uniform" not in names
    assert all(name.startswith("uniform ") for name in names)


@pytest.mark.parametrize("first", [1.0, 1.3, 2.0])
def test_one_measurement_that_is_too_high_costs_little(cost, first):
    limit = cost.full // 2

    def find(allowed: int) -> Shape:
        return uniform_shape(cost, limit=allowed, fill=True)

    meter = Measured(cost, 1.0, first=first)
    shape, spent = find_within(find, cost, limit, meter, cheapest=lambda: cheapest_uniform_shape(cost))
    assert 0.95 * limit < spent == meter(shape) <= limit
    assert len(meter.known) <= 3


def test_predictions_that_are_too_high_are_no_reason_to_give_up(cost):
    """The budget is below what is predicted for the smallest shape, but not below what it takes."""
    smallest = smallest_shape(cost)
    limit = round(0.9 * cost(smallest))
    meter = Measured(cost, 0.5)
    shape, spent = affordable_baseline("random", cost, limit=limit, tolerance=limit // 50, meter=meter)
    assert 2 * spent == pytest.approx(cost(shape), abs=2)
    assert meter(smallest) < spent <= limit
    with pytest.raises(UserError, match="what the network can reach"):
        affordable_baseline("random", cost, limit=limit, tolerance=0, meter=Measured(cost, 0.95))


def test_predictions_are_not_called_measured(cost):
    limit = cost(smallest_shape(cost))
    rng = np.random.default_rng(0)
    widths = rng.dirichlet(np.ones(cost.space.width_choices.longest), len(cost.space.searched_units))
    depths = rng.dirichlet(np.ones(2), len(cost.space.searched_stages))
    for measures, word in ((True, "measured"), (False, "predicted")):
        meter = OnChief(Measured(cost, 1.1, measures=measures))
        with pytest.raises(UserError, match=rf"what the network can reach.*at its smallest, {word}\)"):
            find_within(lambda allowed: decode(cost, widths, depths, limit=allowed), cost, limit, meter)


def test_no_larger_shape_of_its_kind_is_no_error(cost):
    """The measurement asks for a larger shape, of which there is none."""
    smallest = smallest_shape(cost)
    limit = 2 * cost(smallest)

    def find(allowed: int) -> Shape:
        if allowed > limit:
            raise UserError("there is none of this kind")
        return smallest

    shape, spent = find_within(find, cost, limit, Measured(cost, 0.5))
    assert (shape, spent) == (smallest, round(0.5 * cost(smallest)))
