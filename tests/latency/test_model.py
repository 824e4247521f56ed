"""The latency model, on latencies that are computed: what was hidden in them is found again."""

import numpy as np
import pytest

from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.cost.terms import SINGLE, Tiles
from tas_tf.decode.decode import decode
from tas_tf.graph.graph import Graph
from tas_tf.latency.model import SECOND, Kernel, LatencyModel, fit
from tas_tf.latency.operators import operators
from tas_tf.latency.shapes import shapes_to_measure
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.networks import BODIES, make
from tests.parts import slow_except
from tests.supernets import residual_network

_SECONDS = {"present": 4e-7, "reads": 2e-11, "makes": 3e-11, "products": 2e-11, "weights": 1e-10}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_model(load_network("resnet14"))


def hidden_model(space: SearchSpace) -> LatencyModel:
    tiles = {"conv 3x3": (Tiles(8, 8), Tiles(16, 32)), "conv 3x3 strided": (SINGLE, Tiles(16, 16))}
    kinds = {operator.kind: operator.quantities for operator in operators(space)}
    return LatencyModel(
        {
            kind: Kernel({quantity: _SECONDS[quantity] for quantity in quantities}, *tiles.get(kind, (SINGLE, SINGLE)))
            for kind, quantities in kinds.items()
        },
        base=5e-6,
    )


def counts(space: SearchSpace, shapes: list[Shape]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([[shape.widths[unit.name] for unit in space.units] for shape in shapes]),
        np.array([[shape.depths[stage.name] for stage in space.stages] for shape in shapes]),
    )


def test_what_an_operator_costs_is_counted_by_hand(space):
    """One block of the second stage, layer by layer."""
    model = hidden_model(space)
    conv = next(one for one in operators(space) if one.layer == "stage2_block2_conv1")
    assert (conv.kind, conv.made_positions, conv.area) == ("conv 3x3", 256, 9)
    kernel = model.kernels["conv 3x3"]
    terms = [
        conv.term(quantity, kernel.read_tiles, kernel.make_tiles, scale=kernel.seconds[quantity] * SECOND)
        for quantity in conv.quantities
    ]
    assert [term.factor for term in terms] == [4 * 10**8, 256 * 20_000, 256 * 30_000, 9 * 256 * 20_000, 900_000]
    assert [term.make_tiles for term in terms] == [SINGLE, SINGLE, SINGLE, Tiles(16, 32), Tiles(16, 32)]


def test_hidden_coefficients_predict_other_shapes(space):
    truth = hidden_model(space).cost(space)
    measured, others = shapes_to_measure(space, 40), [Shape.random(space, 100 + seed) for seed in range(30)]
    rng = np.random.default_rng(0)
    seconds = truth.exact(*counts(space, measured)) / SECOND * rng.normal(1, 0.002, len(measured))
    model, error = fit(space, *counts(space, measured), seconds)
    predicted = model.cost(space).exact(*counts(space, others)) / truth.exact(*counts(space, others))
    assert np.abs(predicted - 1).mean() < 0.02
    assert 0 < error.mean < 0.03
    assert error.mean <= error.worst


def test_steps_of_kernels_are_found(space):
    """Those of the most frequent kernel, from latencies alone."""
    measured = shapes_to_measure(space, 40)
    seconds = hidden_model(space).cost(space).exact(*counts(space, measured)) / SECOND
    model, _ = fit(space, *counts(space, measured), seconds)
    assert model.kernels["conv 3x3"].make_tiles in (Tiles(16, 32), Tiles(16, 16), Tiles(16, 64))
    assert model.kernels["conv 3x3"].read_tiles == Tiles(8, 8)


def test_the_model_decodes_within_its_own_budget(space):
    cost = hidden_model(space).cost(space)
    rng = np.random.default_rng(0)
    widths = rng.dirichlet(np.ones(space.width_choices.longest), len(space.searched_units))
    depths = rng.dirichlet(np.ones(2), len(space.searched_stages))
    for share in (0.25, 0.5):
        assert cost(decode(cost, widths, depths, limit=int(share * cost.full), tolerance=0)) <= share * cost.full
    assert np.isfinite(float(ExpectedCost(cost)(widths.astype(np.float32), depths.astype(np.float32))))


@pytest.mark.parametrize(
    "body",
    slow_except(BODIES, ["plain", "preactivation", "gate_of_convs", "concat", "flatten", "u_net", "grouped", "nested"]),
)
def test_every_structure_has_operators_and_a_model(body):
    space = SearchSpace.from_graph(Graph.from_model(make(body)))
    shapes = shapes_to_measure(space, 12)
    truth = hidden_model(space).cost(space)
    model, _ = fit(space, *counts(space, shapes), truth.exact(*counts(space, shapes)) / SECOND)
    assert {operator.kind for operator in operators(space)} == set(model.kernels)
    assert model.cost(space)(Shape.full(space)) == pytest.approx(truth.full, rel=0.1)


def test_shapes_are_different_and_of_all_sizes(space):
    shapes = shapes_to_measure(space, 30)
    keys = {(*shape.widths.values(), *shape.depths.values()) for shape in shapes}
    assert len(keys) == len(shapes) == 30
    assert shapes[:2] == [Shape.full(space), Shape.smallest(space)]
    costs = hidden_model(space).cost(space).exact(*counts(space, shapes))
    assert costs.min() < 0.2 * costs.max()
    assert ((costs > 0.3 * costs.max()) & (costs < 0.7 * costs.max())).any()
    fixed = SearchSpace.from_graph(Graph.from_model(residual_network()), axes="depth")
    assert len(shapes_to_measure(fixed, 30)) < 30


def test_kernels_of_transposed_and_grouped_convolutions():
    found = {(one.kind, one.made_positions): one for one in operators(space_of("u_net"))}
    transposed = found["transposed 3x3", 64]
    assert [transposed.term(quantity).factor for quantity in ("products", "weights")] == [9 * 16, 9]
    grouped = next(one for one in operators(space_of("grouped")) if one.kind == "grouped 3x3")
    term = grouped.term("products")
    assert (term.factor, sum(each.width for each in term.reads), sum(each.width for each in term.makes)) == (
        *(9 * 3 * 64, 0),
        12,
    )
    pointwise = next(one for one in operators(space_of("multiplied")) if one.kind == "conv 1x1")
    assert sum(segment.width for segment in pointwise.term("products").reads) == 3 * 12


def space_of(name: str) -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(make(name)))
