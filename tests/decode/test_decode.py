"""Decoding, compared with every shape of a small space, and with the exact cost elsewhere."""

import itertools

import numpy as np
import pytest

from benchmarks.decoding import all_shapes, decode_randomly, gap_to_the_optimum, random_probabilities
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode import decode as decode_module
from tas_tf.decode.choices import Choices
from tas_tf.decode.decode import check_reachable, decode, smallest_shape
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.costs import tiled_cost
from tests.networks import make
from tests.supernets import residual_network


def space_of(name: str, **options) -> SearchSpace:
    image_size = 96 if "MobileNet" in name else 32
    return SearchSpace.from_graph(Graph.from_model(load_network(name, image_size=image_size)), **options)


@pytest.fixture(scope="module")
def small() -> CostModel:
    """A residual net of 10,368 shapes: few widths each, stages of two blocks, shortcut and projections."""
    model = residual_network()
    return CostModel(SearchSpace.from_graph(Graph.from_model(model), width_divisor=4))


@pytest.fixture(scope="module")
def table(small) -> list[tuple[Shape, int]]:
    """All shapes of the space with their costs."""
    return all_shapes(small)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("resnet20", 40), ("keras.applications.MobileNetV2", 20)])
def test_never_over_budget(name, count):
    cost = CostModel(space_of(name))
    for decoding in decode_randomly(cost, count=count):
        decoding.shape.check(cost.space)
        assert decoding.limit - decoding.tolerance <= decoding.spent <= decoding.limit


def gaps_to_the_optimum(small, table, **options) -> np.ndarray:
    """Gaps between decoded shapes and the optimum; every decoded shape is within the budget."""
    gaps = []
    for decoding in decode_randomly(small, seed=1, **options):
        assert decoding.spent <= decoding.limit
        gaps.append(gap_to_the_optimum(small.space, decoding, table))
    return np.array([gap for gap in gaps if gap is not None])


def table_min(table) -> int:
    return min(cost for _, cost in table)


def test_small_spaces_are_solved_exactly(small, table):
    assert len(table) <= decode_module._EXHAUSTIVE
    gaps = gaps_to_the_optimum(small, table, count=45, tolerances=(0, 0.005, 0.05))
    assert len(gaps) > 20
    assert np.abs(gaps).max() < 1e-4


@pytest.mark.slow
def test_the_heuristic_comes_close(small, table, monkeypatch):
    monkeypatch.setattr(decode_module, "_EXHAUSTIVE", 0)
    gaps = gaps_to_the_optimum(small, table, count=120)
    optimal = (gaps < 1e-4).mean()
    print(f"gap to the optimum: mean {gaps.mean():.4f}, largest {gaps.max():.4f} nats; {optimal:.2f} optimal")
    assert gaps.min() > -1e-4
    assert gaps.mean() < 0.1
    assert optimal > 0.9


def test_units_of_dropped_blocks_stay_at_their_most_probable(small):
    space, rng = small.space, np.random.default_rng(2)
    found = 0
    for _ in range(10):
        widths, depths = random_probabilities(space, rng, 1.0)
        shape = decode(small, widths, depths, limit=int(0.3 * small.full), tolerance=0)
        for row, unit in zip(widths, space.searched_units, strict=True):
            blocks = [space.block_of.get(member) for member in unit.members]
            if None not in blocks and all(shape.depths[stage] < number for stage, number in blocks):
                found += 1
                assert shape.widths[unit.name] == unit.candidates[row.argmax()]
    assert found > 5


def test_the_smallest_shape_is_the_smallest(small, table):
    assert small(smallest_shape(small)) == table_min(table)


@pytest.mark.parametrize("body", ["residual", "preactivation", "concat", "gate_of_convs", "flatten"])
def test_the_smallest_shape_of_other_networks(body):
    """Narrowing one side of an Add alone costs a projection: the smallest candidates needn't be the cheapest."""
    space = SearchSpace.from_graph(Graph.from_model(make(body)), width_divisor=5)
    for cost in (*(CostModel(space, kind) for kind in ("macs", "params", "bytes")), tiled_cost(space)):
        choices = itertools.product(*(choice.candidates for choice in (*space.units, *space.stages)))
        states = np.array(list(itertools.islice(choices, 50_000)))
        costs = cost.exact(states[:, : len(space.units)], states[:, len(space.units) :])
        assert cost(smallest_shape(cost)) == costs.min()


def test_a_budget_out_of_reach_names_what_can_be_reached(small, table):
    lowest = table_min(table)
    check_reachable(small, lowest)
    with pytest.raises(UserError, match=f"can reach.*{lowest:,} macs.*Received: {lowest - 1:,}") as error:
        decode(small, *random_probabilities(small.space, np.random.default_rng(0), 1.0), limit=lowest - 1)
    share = str(error.value).split("at least ")[1].split(" ")[0]
    assert 0 <= Budget.parse(share).limit(small.full) - lowest <= small.full / 1000


@pytest.mark.parametrize("axes", ["width", "depth"])
def test_one_axis_alone(axes):
    space = space_of("resnet20", axes=axes)
    cost = CostModel(space, "params")
    probabilities = random_probabilities(space, np.random.default_rng(0), 1.0)
    shape = decode(cost, *probabilities, limit=int(0.6 * cost.full), tolerance=int(0.2 * cost.full))
    assert 0.4 * cost.full - 1 <= cost(shape) <= 0.6 * cost.full
    fixed = space.stages if axes == "width" else space.units
    counts = shape.depths if axes == "width" else shape.widths
    assert all(counts[choice.name] == choice.candidates[-1] for choice in fixed)


@pytest.mark.parametrize(
    "space",
    [
        lambda: space_of("resnet20"),
        lambda: space_of("resnet20", couple_trunk=True),
        lambda: space_of("keras.applications.MobileNetV2"),
        lambda: SearchSpace.from_graph(Graph.from_model(make("concat"))),
        lambda: SearchSpace.from_graph(Graph.from_model(make("gate_of_convs"))),
    ],
    ids=["resnet20", "coupled trunk", "MobileNetV2", "concat", "gate"],
)
def test_moves_cost_what_counting_anew_says(space):
    space = space()
    rng = np.random.default_rng(0)
    for cost in (*(CostModel(space, kind) for kind in ("macs", "params", "bytes")), tiled_cost(space)):
        choices = Choices(cost, *random_probabilities(space, rng, 1.0))
        for _ in range(2):
            state = np.array([rng.integers(count) for count in choices.counts])
            moves = choices.moves(state)
            assert len(moves.choice) == (choices.counts - 1).sum()
            states = np.stack([moves.apply(state, move) for move in range(len(moves.choice))])
            now = choices.costs(state[None])[0]
            assert moves.cost == now
            np.testing.assert_array_equal(moves.spent, choices.costs(states) - now)
            np.testing.assert_allclose(moves.lost, choices.losses(states) - choices.losses(state[None]), atol=1e-9)


@pytest.mark.slow
def test_the_work_of_decoding_grows_with_the_number_of_choices(monkeypatch):
    """A search decodes after every epoch. The cost is how often all moves are listed and how many states are priced."""
    cost = CostModel(space_of("resnet110"))
    probabilities = random_probabilities(cost.space, np.random.default_rng(0), 4.0)
    listed, priced, moves, costs = [], [], Choices.moves, Choices.costs
    monkeypatch.setattr(
        Choices, "moves", lambda self, *args, **kwargs: listed.append(1) or moves(self, *args, **kwargs)
    )
    monkeypatch.setattr(Choices, "costs", lambda self, states: priced.append(len(states)) or costs(self, states))
    shape = decode(cost, *probabilities, limit=cost.full // 2, tolerance=cost.full // 20)
    choices = len(cost.space.searched_units) + len(cost.space.searched_stages)
    assert 0 < len(listed) < 10 * choices
    assert 0 < sum(priced) < 200 * choices
    assert 0.45 * cost.full - 1 <= cost(shape) <= 0.5 * cost.full


@pytest.mark.slow
def test_latency_is_decoded_as_well_as_multiply_adds():
    """A space of 10,368 shapes, all priced: tiles make steps, but a shape in the window is found if there is one."""
    space = SearchSpace.from_graph(Graph.from_model(residual_network()), width_divisor=4)
    cost = tiled_cost(space)
    shapes = all_shapes(cost)
    rng = np.random.default_rng(1)
    for share in (0.55, 0.75):
        limit = int(share * cost.full)
        shape = decode(cost, *random_probabilities(space, rng, 1.0), limit=limit, tolerance=limit // 10)
        assert cost(shape) <= limit
        assert any(limit - limit // 10 <= spent <= limit for _, spent in shapes) == (cost(shape) >= limit - limit // 10)
