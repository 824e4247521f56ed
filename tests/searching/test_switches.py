"""Options of a search: each one trains, and options that are off have no effect."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.searching.run import cost_and_limit, run_search
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.shape import Shape
from tas_tf.supernet.layers.gates import ArchitectureGates
from tas_tf.supernet.layers.statistics import running_momentum
from tas_tf.supernet.sample import Sample
from tas_tf.training.optimizers import arch_adam
from tas_tf.training.strategy import make_strategy
from tests.digits import CLASSES, tiny_search, tiny_space, tiny_task
from tests.parts import slow_except
from tests.supernets import apply_supernet, random_supernet, residual_network, space_of

#: More than any unit has candidates.
ALL = 99


@functools.cache
def searched(axes: str):
    """A network of one stage in which only these axes are searched."""
    return space_of(residual_network(num_stages=1), axes=axes)


@functools.cache
def images():
    return tf.constant(np.random.default_rng(0).normal(size=(6, 8, 8, 3)), tf.float32)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def values(variables) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables]


def step_of(space, **options) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and logits after one step."""
    rng = np.random.default_rng(1)
    batch = (images(), tf.constant(rng.integers(0, 5, 6)))
    searcher = Searcher(random_supernet(space, **options), CLASSES, ExpectedCost(CostModel(space)), CostTarget(0.6))
    searcher.compile(keras.optimizers.SGD(0.05), arch_adam(0.05))
    searcher.train_step((batch, batch))
    return values(searcher.supernet.weight_variables), values(searcher.supernet.architecture_variables)


@pytest.mark.slow
def test_a_whole_search_of_all_widths_without_noise():
    space, budget, logits = tiny_space(), Budget.parse("macs:0.7"), []

    class Watch(keras.callbacks.Callback):
        """Records the logits at the start."""

        def on_train_begin(self, logs=None):
            logits.extend(values(self.model.supernet.architecture_variables))

    result = run_search(
        space,
        tiny_task(),
        budget,
        tiny_search(num_drawn=None, noise=False),
        strategy=make_strategy("one_device"),
        callbacks=lambda monitor: [Watch()],
        verbose=0,
    )
    cost, limit = cost_and_limit(space, budget)
    assert cost(result.shape) <= limit
    gates = result.supernet.gates
    assert (gates.num_drawn, gates.noise) == (max(len(unit.candidates) for unit in space.units), False)
    for before, after in zip(logits, result.supernet.architecture_variables, strict=True):
        assert np.abs(before - np.array(after)).max() > 1e-3


@pytest.mark.parametrize(
    ("axes", "num_drawn", "noise"),
    slow_except(
        [
            (axes, *way)
            for axes in ("both", "width", "depth")
            for way in ((1, True), (2, True), (3, True), (ALL, True), (2, False))
        ],
        [("both", 1, True), ("both", ALL, True), ("both", 2, False), ("width", 2, True), ("depth", 2, True)],
    ),
)
def test_each_way_trains_what_is_searched_and_nothing_else(axes, num_drawn, noise):
    space = searched(axes)
    weights, logits = step_of(space, num_drawn=num_drawn, noise=noise)
    supernet = random_supernet(space)
    assert len(logits) == len(space.searched_units) + len(space.searched_stages)
    assert (bool(space.searched_units), bool(space.searched_stages)) == (axes != "depth", axes != "width")
    for after, before in zip(logits, values(supernet.architecture_variables), strict=True):
        assert np.isfinite(after).all()
        assert np.abs(after - before).max() > 1e-3
    changed = [
        np.abs(after - before).max()
        for after, before in zip(weights, values(supernet.weight_variables), strict=True)
        if after.ndim > 1
    ]
    assert all(np.isfinite(changed))
    assert min(changed) > 0


def drawn_by(gates, step):
    """Weights by candidate, `[units, candidates]`, and depth weights."""
    indices, weights, depths = (tensor.numpy() for tensor in gates(tf.constant(step)))
    spread = np.zeros((len(indices), gates.width_choices.longest))
    np.add.at(spread, (np.arange(len(indices))[:, None], indices), weights)
    return spread, depths


def make_gates(**options) -> ArchitectureGates:
    gates = ArchitectureGates(
        [{"name": "wide", "candidates": [2, 3, 5, 8]}, {"name": "narrow", "candidates": [1, 2]}],
        [{"name": "stage_1", "depths": [1, 2, 3]}],
        **options,
    )
    gates.temperature.assign(0.7)
    for name, logits in (("wide", [0.5, -0.5, 0.2, 1.0]), ("narrow", [0.3, -0.3]), ("stage_1", [0.0, 0.4, -0.2])):
        gates.logits_of(name).assign(logits)
    return gates


def test_all_without_noise_is_the_same_mixture_for_every_step_and_seed():
    expected = [softmax(np.array([0.5, -0.5, 0.2, 1.0]) / 0.7), softmax(np.array([0.3, -0.3]) / 0.7)]
    for seed in range(3):
        gates = make_gates(num_drawn=ALL, noise=False, seed=seed)
        for step in range(5):
            widths, depths = drawn_by(gates, step)
            np.testing.assert_allclose(widths[0], expected[0], rtol=1e-4)
            np.testing.assert_allclose(widths[1], [*expected[1], 0, 0], rtol=1e-4)
            np.testing.assert_allclose(depths[0], softmax(np.array([0.0, 0.4, -0.2]) / 0.7), rtol=1e-4)


def test_all_with_noise_leaves_no_candidate_out_and_differs_by_step():
    gates, drawn = make_gates(num_drawn=ALL), []
    for step in range(5):
        widths, depths = drawn_by(gates, step)
        assert (widths[0] > 0).all()
        assert (widths[1, :2] > 0).all()
        drawn.append((widths, depths))
    for mixtures in zip(*drawn, strict=True):
        assert all(np.abs(one - mixtures[0]).max() > 0.05 for one in mixtures[1:])


def test_without_noise_depths_do_not_depend_on_the_step_and_widths_only_on_which_are_drawn():
    gates = make_gates(noise=False)
    by_choice, depths = {}, []
    for step in range(40):
        widths, depth = drawn_by(gates, step)
        by_choice.setdefault(tuple(widths[0] > 0), []).append(widths[0])
        depths.append(depth)
    assert np.ptp(depths, axis=0).max() == 0
    assert len(by_choice) > 3
    for chosen, mixtures in by_choice.items():
        assert sum(chosen) == 2
        np.testing.assert_allclose(mixtures, np.tile(mixtures[0], (len(mixtures), 1)), rtol=1e-5)


def test_one_drawn_is_the_network_of_that_width_alone():
    space = searched("width")
    supernet = random_supernet(space, num_drawn=1)
    for step in range(3):
        drawn = supernet.gates(tf.constant(step))
        indices, weights = (tensor.numpy() for tensor in drawn[:2])
        assert indices.shape == (len(space.searched_units), 1)
        np.testing.assert_array_equal(weights, 1.0)
        widths = [unit.candidates[index] for unit, (index,) in zip(space.units, indices, strict=True)]
        alone = Sample.one_hot(space, Shape.from_counts(space, widths, [2]))
        np.testing.assert_allclose(
            supernet(images(), sample=drawn), apply_supernet(supernet, space, images(), alone), rtol=1e-5, atol=1e-6
        )


def run(supernet, sample) -> np.ndarray:
    with running_momentum(1.0):
        return supernet(images(), sample=sample, training=True).numpy()


@pytest.mark.parametrize("axes", ["width", "depth"])
def test_the_forward_pass_ignores_what_is_switched_off(axes):
    supernet = random_supernet(searched(axes))
    indices, weights, depths = supernet.gates(tf.constant(0))
    wanted = run(supernet, (indices, weights, depths))
    if axes == "width":
        other, own = (indices, weights, 0.3 * depths), (indices, weights[:, ::-1], depths)
    else:
        other, own = (indices, 0.3 * weights, depths), (indices, weights, depths[:, ::-1])
    np.testing.assert_array_equal(run(supernet, other), wanted)
    assert np.abs(run(supernet, own) - wanted).max() > 1e-3  # what is searched does count


@pytest.mark.parametrize("axes", ["width", "depth"])
def test_what_is_switched_off_is_as_in_the_unpruned_network(axes):
    """Compared with the supernet of both axes, the other axis held at its full size."""
    space, both = searched(axes), searched("both")
    supernet, reference = random_supernet(space), random_supernet(both, seed=1)
    indices, weights, depths = (tensor.numpy() for tensor in supernet.gates(tf.constant(3)))
    _copy_full_candidates(supernet, reference)
    full = Sample.one_hot(both, Shape.full(both)).arrays(both)
    sample = (indices, weights, full[2]) if axes == "width" else (full[0], full[1], depths)
    wanted = run(reference, tuple(map(tf.constant, sample)))
    np.testing.assert_allclose(run(supernet, (indices, weights, depths)), wanted, rtol=1e-4, atol=1e-5)


def _copy_full_candidates(source, target) -> None:
    """Gives the supernet of both axes the other's weights; where that has no candidates, to the full one."""
    weights = {
        (layer.name.removesuffix("_bn"), weight.name): np.array(weight)
        for layer in source.body.layers
        for weight in layer.weights
    }
    for layer in target.body.layers:
        for weight in layer.weights:
            value = weights[layer.name, weight.name]
            if value.ndim < len(weight.shape):
                value = np.concatenate([np.array(weight)[:-1], value[None]])
            weight.assign(value)


def test_how_many_widths_are_drawn_means_nothing_where_depth_alone_is_searched():
    one, all_of_them = (step_of(searched("depth"), num_drawn=num_drawn) for num_drawn in (1, ALL))
    for ours, theirs in zip((*one[0], *one[1]), (*all_of_them[0], *all_of_them[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_seed_of_draws_means_nothing_where_all_are_drawn_without_noise():
    """Equal up to rounding: the seed determines the order of the drawn candidates."""
    supernet, found = random_supernet(searched("both"), num_drawn=ALL, noise=False), {}
    for seed in (0, 7):
        supernet.gates.seed = seed
        sample = supernet.gates(tf.constant(seed))
        found[seed] = (sample[0].numpy(), run(supernet, sample))
    assert not np.array_equal(found[0][0], found[7][0])
    np.testing.assert_allclose(found[0][1], found[7][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("best", slow_except([0, 3, 7], [3]))
def test_one_drawn_finds_the_best_width(best):
    """The losses of the widths are known; without the straight-through gradient, the logits wouldn't change."""
    losses = tf.constant(0.5 + 0.3 * np.abs(np.arange(8) - best), tf.float32)
    gates = ArchitectureGates([{"name": "unit", "candidates": list(range(3, 11))}], [], num_drawn=1, seed=best)
    gates.temperature.assign(1.0)
    optimizer = arch_adam(0.05)
    (logits,) = gates.trainable_variables
    optimizer.build([logits])

    @tf.function
    def train_step(step):
        with tf.GradientTape() as tape:
            indices, weights, _ = gates(step)
            loss = tf.reduce_sum(weights[0] * tf.gather(losses, indices[0]))
        optimizer.apply_gradients([(tape.gradient(loss, logits.value), logits)])

    for step in tf.range(600):
        train_step(step)
    chances = softmax(np.array(logits))
    assert chances.argmax() == best
    assert chances[best] > 0.4  # of eight
