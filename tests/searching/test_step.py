"""One step of the search: which variables each half updates, on one replica or two, and the effect of the cost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.supernet.layers.gates import ArchitectureGates
from tests.digits import CLASSES
from tests.supernets import freeze, random_supernet, residual_network, space_of

BATCH = 8


@pytest.fixture(scope="module")
def space():
    return space_of(residual_network(num_stages=1))


@pytest.fixture(scope="module")
def plain_space():
    """Without BN, whose statistics differ between replicas."""
    return space_of(residual_network(num_stages=1, normalise=False))


def make_searcher(space, *, lr=0.05, arch_lr=0.05, arch_optimizer=None, budget=0.5, driver="max", **options):
    supernet = random_supernet(space)
    target = CostTarget(budget, driver=driver)
    searcher = Searcher(supernet, CLASSES, ExpectedCost(CostModel(space)), target, **options)
    searcher.compile(keras.optimizers.SGD(lr, momentum=0.9), arch_optimizer or keras.optimizers.Adam(arch_lr))
    return searcher


def make_batch(seed, count=BATCH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 8, 8, 3)).astype("float32"), rng.integers(0, 5, count)


def make_data(weights_seed, arch_seed):
    return tuple(tuple(map(tf.constant, make_batch(seed))) for seed in (weights_seed, arch_seed))


def values(variables):
    return [np.array(variable) for variable in variables]


def assert_equal(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)


def running_statistics(searcher):
    return values(weight for weight in searcher.supernet.weights if weight.name.startswith("moving"))


@pytest.mark.slow
def test_two_replicas_take_the_same_steps_as_one(plain_space, two_replicas):
    alone = make_searcher(plain_space)
    with two_replicas.scope():
        replicated = make_searcher(plain_space)

    @tf.function
    def replicated_step(data):
        return two_replicas.run(replicated.train_step, (data,))

    for number in range(2):
        data = make_data(2 * number, 2 * number + 1)
        halves = [tf.nest.map_structure(lambda part, half=half: tf.split(part, 2)[half], data) for half in range(2)]
        logs = alone.train_step(data)
        replicated_step(
            two_replicas.experimental_distribute_values_from_function(
                lambda context, halves=halves: halves[context.replica_id_in_sync_group]
            )
        )
    for one, other in zip(alone.supernet.weights, replicated.supernet.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=one.path)
    for name, value in replicated.get_metrics_result().items():
        assert float(value) == pytest.approx(float(alone.get_metrics_result()[name]), rel=1e-4, abs=1e-5), name
    assert set(logs) == {"weight_loss", "arch_loss", "cost_loss", "expected_cost", "argmax_cost",
                         "weight_accuracy", "arch_accuracy"}  # fmt: skip


def test_a_step_in_parts_is_the_same(plain_space):
    whole, parts = (make_searcher(plain_space, parts=number) for number in (1, 2))
    logs = [searcher.train_step(make_data(0, 1)) for searcher in (whole, parts)]
    for one, other in zip(whole.supernet.weights, parts.supernet.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=one.path)
    for name, value in logs[0].items():
        assert float(logs[1][name]) == pytest.approx(float(value), rel=1e-4, abs=1e-5), name


def test_the_architecture_step_leaves_running_statistics_and_weights_alone(space):
    one, other = make_searcher(space), make_searcher(space)
    before = running_statistics(one)
    one.train_step(make_data(0, 1))
    other.train_step(make_data(0, 2))  # the same for the weights, another batch for the logits
    assert_equal(running_statistics(one), running_statistics(other))
    assert not np.allclose(before[0], running_statistics(one)[0])
    assert_equal(values(one.supernet.weight_variables), values(other.supernet.weight_variables))
    assert not np.allclose(*(values(each.supernet.architecture_variables)[0] for each in (one, other)))


def test_each_step_updates_its_own_variables(space):
    searcher = make_searcher(space, arch_lr=0.0)
    weights, logits = (values(part) for part in _parts(searcher))
    searcher.train_step(make_data(0, 1))
    assert_equal(values(searcher.supernet.architecture_variables), logits)
    assert not np.allclose(values(searcher.supernet.weight_variables)[0], weights[0])

    searcher = make_searcher(space, lr=0.0)
    searcher.train_step(make_data(0, 1))
    assert_equal(values(searcher.supernet.weight_variables), weights)
    for one, other in zip(values(searcher.supernet.architecture_variables), logits, strict=True):
        assert not np.allclose(one, other)


def _parts(searcher):
    return searcher.supernet.weight_variables, searcher.supernet.architecture_variables


def test_the_two_steps_draw_differently_and_afresh_each_time(plain_space, monkeypatch):
    searcher, steps = make_searcher(plain_space), []
    draw = ArchitectureGates.call
    monkeypatch.setattr(ArchitectureGates, "call", lambda self, step: steps.append(int(step)) or draw(self, step))
    for number in range(3):
        searcher.train_step(make_data(number, 7))
    assert steps == [0, 1, 2, 3, 4, 5]


def test_frozen_logits_never_change(space):
    searcher = make_searcher(space)
    frozen = [stage.name for stage in space.searched_stages] + ["stem"]
    freeze(searcher.supernet.gates, frozen)
    searcher.compile(keras.optimizers.SGD(0.05), keras.optimizers.Adam(0.05))
    before = {name: np.array(searcher.supernet.gates.logits_of(name)) for name in [*frozen, "block1_conv1"]}
    for number in range(2):
        searcher.train_step(make_data(number, number + 10))
    for name in frozen:
        np.testing.assert_array_equal(searcher.supernet.gates.logits_of(name), before[name])
    assert not np.allclose(searcher.supernet.gates.logits_of("block1_conv1"), before["block1_conv1"])


def test_arch_l2_is_added_to_the_gradient_of_trained_logits_alone(space):
    moved = {}
    for l2 in (0.0, 0.5):
        searcher = make_searcher(space, arch_optimizer=keras.optimizers.SGD(1.0), arch_l2=l2)
        gates = searcher.supernet.gates
        for number, variable in enumerate((*gates.width_logits, *gates.depth_logits)):
            variable.assign(np.linspace(-1, 1, variable.shape[0]) * (number + 1) / 4)
        freeze(gates, ["block2_conv1"])
        searcher.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(1.0))
        before = values((*gates.width_logits, *gates.depth_logits))
        searcher.train_step(make_data(0, 1))
        moved[l2] = values((*gates.width_logits, *gates.depth_logits))
    names = [choice.name for choice in (*space.searched_units, *space.searched_stages)]
    for name, start, without, with_l2 in zip(names, before, moved[0.0], moved[0.5], strict=True):
        pull = 0.0 if name == "block2_conv1" else 0.5
        np.testing.assert_allclose(with_l2 - without, -pull * start, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("num_drawn", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradient_of_the_architecture_loss_matches_finite_differences(space, num_drawn):
    supernet = random_supernet(space, num_drawn=num_drawn)
    searcher = Searcher(supernet, CLASSES, ExpectedCost(CostModel(space)), CostTarget(0.4))
    gates = supernet.gates
    gates.temperature.assign(1.5)
    images, labels = map(tf.constant, make_batch(3, 16))
    compute = tf.function(searcher._compute_arch_gradients)
    draw, step = tf.constant(6), 0.02
    drawn = gates(draw)[0].numpy()

    def total():
        loss, _, costs, gradients = compute(images, labels, draw)
        assert float(costs[0]) != 0.0  # the cost takes part
        np.testing.assert_array_equal(gates(draw)[0], drawn)  # the draw is held
        return float(loss) + searcher.target.weight * float(costs[0]), gradients

    gradients = dict(zip([v.name for v in supernet.architecture_variables], total()[1], strict=True))
    for name in ("stem", "block1_conv1", "block2_conv2", "stage_1"):
        variable = gates.logits_of(name)
        gradient, start = gradients[f"{name}_logits"].numpy(), np.array(variable)
        assert np.abs(gradient).max() > 1e-3
        direction = gradient / np.linalg.norm(gradient)
        losses = []
        for sign in (1, -1):
            variable.assign(start + sign * step * direction)
            losses.append(total()[0])
        variable.assign(start)
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(np.linalg.norm(gradient), rel=0.03), name


@pytest.mark.slow
def test_compiled_gradients_take_the_same_step():
    images = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(images)))
    model = keras.Model(images, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))
    compiled, plain = (make_searcher(space_of(model), jit_compile=jit, budget=0.3) for jit in (True, False))
    for searcher in (compiled, plain):
        tf.function(searcher.train_step)(make_data(0, 1))
    for one, other in zip(compiled.supernet.weights, plain.supernet.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_metrics_are_those_of_the_losses(space):
    searcher = make_searcher(space, lr=0.0, arch_lr=0.0)
    data = make_data(0, 1)
    logs = searcher.train_step(data)
    for name, (images, labels), step in (("weight", data[0], 0), ("arch", data[1], 1)):
        logits = searcher.supernet(images, sample=searcher.supernet.gates(tf.constant(step)), training=True).numpy()
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        wanted = -np.log(chances[np.arange(BATCH), labels]).mean()
        assert float(logs[f"{name}_loss"]) == pytest.approx(wanted, rel=1e-4)
        assert float(logs[f"{name}_accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == labels))
    cost_loss, expected, argmax = searcher.costs()
    assert float(logs["expected_cost"]) == pytest.approx(float(expected))
    assert float(logs["argmax_cost"]) == pytest.approx(float(argmax))
    assert float(logs["cost_loss"]) == pytest.approx(float(cost_loss))


@pytest.mark.parametrize(
    ("driver", "expected", "argmax", "sign"),
    [
        ("argmax", 0.3, 0.6, 1),
        ("argmax", 0.7, 0.47, 0),
        ("argmax", 0.7, 0.2, -1),
        ("max", 0.3, 0.6, 1),
        ("max", 0.7, 0.2, 1),
        ("max", 0.47, 0.2, 0),
        ("max", 0.3, 0.48, 0),
        ("max", 0.3, 0.2, -1),
        ("max", 0.5, 0.5, 0),
    ],
)
def test_cost_loss(driver, expected, argmax, sign):
    target = CostTarget(0.5, tolerance=0.05, driver=driver)
    variable = tf.Variable(expected)
    with tf.GradientTape() as tape:
        loss = target.loss(tf.convert_to_tensor(variable), tf.constant(argmax))
    assert float(loss) == pytest.approx(sign * np.log(expected), rel=1e-5)
    gradient = tape.gradient(loss, variable)
    assert float(gradient) == pytest.approx(sign / expected, rel=1e-5)


@pytest.mark.parametrize(("budget", "driver", "falls"), [(0.1, "max", True), (0.99, "max", False)])
def test_the_cost_moves_towards_the_budget(space, budget, driver, falls):
    searcher = make_searcher(space, budget=budget, driver=driver, arch_lr=0.1)
    start = float(searcher.costs()[1])
    for number in range(3):
        searcher.train_step(make_data(number, number + 20))
    assert (float(searcher.costs()[1]) < start) == falls
