"""Budgets in bytes: predictions against real files, and what happens where a file is larger than predicted."""

import numpy as np
import pytest

from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode, smallest_shape
from tas_tf.deploy.tflite import export_tflite, file_size
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.searching.run import cost_and_limit
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.student.file_size import FileSize
from tas_tf.student.meter import find_within, make_cost, real_cost
from tests.networks import make, randomize
from tests.supernets import residual_network, space_of


def assert_predicted(space: SearchSpace, seeds: range, *, within: float) -> None:
    real = FileSize(space, file_size)
    cost = make_cost(space, "bytes", real)
    assert cost.full == real(Shape.full(space))
    for seed in seeds:
        shape = Shape.random(space, seed)
        assert cost(shape) == pytest.approx(real(shape), rel=within), seed


@pytest.mark.slow
def test_predictions_come_near_real_files():
    """A network of 12 kB, more than half of it names: larger ones are within 1 %, see benchmarks/file_size.py."""
    assert_predicted(space_of(residual_network()), range(2), within=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["separable", "gate_of_convs", "preactivation", "u_net", "multiplied"])
def test_predictions_know_other_layers(name):
    """What is left of a file without weights is alike in all shapes, as these have no blocks to drop."""
    space = space_of(make(name), axes="width")
    real, plain = FileSize(space, file_size), CostModel(space, "bytes", file_bytes=0)
    rest = {real(shape) - plain(shape) for shape in (Shape.full(space), Shape.smallest(space))}
    assert max(rest) - min(rest) < 200  # a flatbuffer aligns its parts


def test_measured_is_what_is_exported(tmp_path):
    space = space_of(residual_network())
    shape = Shape.random(space, 3)
    path = export_tflite(randomize(build_student(space, shape)), tmp_path / "student.tflite")
    assert FileSize(space, file_size)(shape) == path.stat().st_size


@pytest.fixture
def small() -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(residual_network()), width_divisor=4)


def test_each_shape_is_measured_once(small):
    measured = []
    real = FileSize(small, lambda student: measured.append(student) or student.count_params())
    shape = Shape.random(small, 0)
    assert real(shape) == real(Shape.random(small, 0)) == build_student(small, shape).count_params()
    assert len(measured) == 1
    weights = np.concatenate([weight.ravel() for weight in measured[0].get_weights()])
    assert len(np.unique(weights)) > 0.99 * len(weights)


def test_a_file_that_is_larger_than_predicted_is_given_up(small):
    """Files are a tenth larger than predicted: what is found is within the budget by what was measured."""
    full = CostModel(small, "bytes").full
    cost = make_cost(small, "bytes", FileSize(small, lambda student: full))
    real = FileSize(small, lambda student: int(1.1 * cost(shape_of(student))))

    def shape_of(student) -> Shape:
        names = {layer.name: layer for layer in student.layers}
        widths = [names[unit.name].filters if unit.name in names else unit.candidates[0] for unit in small.units]
        depths = [sum(end in names for end in stage.ends) for stage in small.stages]
        return Shape.from_counts(small, widths, depths)

    rng = np.random.default_rng(0)
    longest = max(len(unit.candidates) for unit in small.units)
    widths, depths = rng.dirichlet(np.ones(longest), len(small.units)), rng.dirichlet(np.ones(2), len(small.stages))
    limit = cost.full // 2
    tried = []

    def find(allowed: int) -> Shape:
        tried.append(allowed)
        return decode(cost, widths, depths, limit=allowed, tolerance=0)

    shape, spent = find_within(find, cost, limit, real)
    assert spent == real(shape) <= limit < 1.1 * cost(find(limit))
    assert len(tried) > 2
    assert real_cost(cost, shape, None) == cost(shape)
    with pytest.raises(UserError, match="below what"):
        find_within(find, cost, cost(smallest_shape(cost)), real)


def test_multiply_adds_need_no_files(small):
    cost, limit = cost_and_limit(small, Budget.parse("macs:0.5"))
    shape, spent = find_within(lambda allowed: smallest_shape(cost), cost, limit, None)
    assert spent == cost(shape)


def test_bytes_without_measure_are_refused(small):
    with pytest.raises(UserError, match="`meter`"):
        cost_and_limit(small, Budget.parse("bytes:0.5"))


def test_a_budget_that_only_the_prediction_reaches_is_refused_at_once(small):
    """The smallest shape's file is larger than predicted: nobody should wait for a search to hear of it."""
    full = CostModel(small, "bytes").full
    cost = make_cost(small, "bytes", FileSize(small, lambda student: full))
    lowest = cost(smallest_shape(cost))
    biggest = Shape.full(small)
    real = FileSize(small, lambda student: full if student.count_params() == params_of(biggest) else lowest + 100)

    def params_of(shape: Shape) -> int:
        return CostModel(small, "params")(shape)

    with pytest.raises(UserError, match=rf"Expected at least bytes:{lowest + 100} .*Received: {lowest + 50:,} bytes"):
        cost_and_limit(small, Budget.parse(f"bytes:{lowest + 50}"), real)
    assert cost_and_limit(small, Budget.parse(f"bytes:{lowest + 100}"), real)[1] == lowest + 100


@pytest.mark.slow
def test_the_whole_is_the_unpruned_network(small):
    real = FileSize(small, file_size)
    cost, limit = cost_and_limit(small, Budget.parse("bytes:1.0"), real)
    assert limit == cost.full == real(Shape.full(small))
    assert find_within(lambda allowed: Shape.full(small), cost, limit, real)[1] == limit
