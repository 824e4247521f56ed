"""A search from data to a shape: schedules, records, and the same end after an interruption."""

import json
import math
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.errors import UserError
from tas_tf.searching.monitor import BestShape, SearchMonitor
from tas_tf.searching.run import TemperatureSchedule, cost_and_limit, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.searching.step import CostTarget, Searcher
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.build import build_supernet
from tas_tf.training.checkpoint import Saving, saved_progress
from tas_tf.training.optimizers import arch_adam, sgd
from tas_tf.training.strategy import make_strategy
from tests.digits import CLASSES, tiny_network, tiny_search, tiny_space, tiny_task
from tests.supernets import freeze

BUDGET = Budget.parse("macs:0.5")


def search(space=None, *, strategy=None, settings=None, **options):
    return run_search(
        space or tiny_space(),
        tiny_task(),
        BUDGET,
        settings or tiny_search(),
        strategy=strategy or make_strategy("one_device"),
        verbose=0,
        **options,
    )


def logits_of(result) -> list[np.ndarray]:
    gates = result.supernet.gates
    return [np.array(variable) for variable in (*gates.width_logits, *gates.depth_logits)]


class Watch(keras.callbacks.Callback):
    """Records the temperature and the decoded shape of each epoch, and simulates the end of the process in one."""

    def __init__(self, killed_in: int | None = None):
        super().__init__()
        self.temperatures, self.noted, self.killed_in = [], [], killed_in
        self.monitor: SearchMonitor | None = None

    def of(self, monitor: SearchMonitor) -> list[keras.callbacks.Callback]:
        self.monitor = monitor
        return [self]

    def on_epoch_end(self, epoch, logs=None):
        self.noted.append((logs["val_accuracy"], epoch, self.monitor.shape))

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.temperatures.append(float(self.model.supernet.gates.temperature))

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.killed_in and batch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole():
    watch = Watch()
    # With a rate that high the shapes change from one epoch to the next.
    settings = tiny_search(epochs=3, keep_shape="best", arch_lr=1.0)
    return search(settings=settings, callbacks=watch.of), watch, settings


@pytest.mark.parametrize("minutes", [pytest.param(10.0, marks=pytest.mark.slow), 1e-9])
def test_a_killed_search_ends_where_an_uninterrupted_one_ends(whole, tmp_path, minutes):
    """After the first epoch or, saved more often, after a step of the second."""
    expected, _, settings = whole
    with pytest.raises(KeyboardInterrupt):
        search(settings=settings, saving=Saving(tmp_path, minutes), callbacks=Watch(killed_in=1).of)
    saved = saved_progress(tmp_path)
    assert (saved.epochs, saved.steps) == (1, 0 if minutes == 10 else 1)
    watch = Watch()
    resumed = search(settings=settings, saving=Saving(tmp_path), callbacks=watch.of)
    assert watch.temperatures == whole[1].temperatures[1:]
    assert resumed.shape == expected.shape
    for ours, theirs in zip(logits_of(resumed), logits_of(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert {**resumed.metrics, "seconds": 0} == {**expected.metrics, "seconds": 0}
    assert resumed.history == expected.history


@pytest.mark.slow
def test_a_search_killed_after_its_last_epoch_is_only_told_again(tmp_path):
    found, again = (search(saving=Saving(tmp_path)) for _ in range(2))
    assert again.shape == found.shape
    assert again.history == found.history


def test_the_best_epochs_shape_is_kept(whole):
    result, watch, _ = whole
    accuracy, epoch, shape = max(watch.noted, key=lambda entry: entry[:2])
    assert len({str(noted.to_json()) for _, _, noted in watch.noted}) > 1
    assert result.shape == shape
    assert (result.metrics["held_out_accuracy"], result.metrics["kept_epoch"]) == (accuracy, epoch + 1)
    cost, _ = cost_and_limit(tiny_space(), BUDGET)
    assert result.metrics["shape_macs"] == cost(shape)


@pytest.mark.slow
def test_the_best_shape_is_saved_with_each_epoch():
    saved = []

    class Note(keras.callbacks.Callback):
        """Records what is saved."""

        def on_train_begin(self, logs=None):
            saved.extend(variable.path for variable in self.model.variables)

    search(callbacks=lambda monitor: [Note()])
    assert {"best/counts", "best/goodness"} <= {"/".join(path.split("/")[-2:]) for path in saved}


def test_of_shapes_equally_good_the_later_one_is_best():
    best, shapes = BestShape(tiny_space()), [Shape.random(tiny_space(), seed) for seed in range(4)]
    for shape, accuracy in zip(shapes, (0.3, 0.7, 0.7, 0.1), strict=True):
        best.consider(shape, accuracy)
    assert best.shape() == shapes[2] != shapes[1]
    with pytest.raises(ValueError, match="No shape"):
        BestShape(tiny_space()).shape()


def test_the_result_is_within_budget_and_says_so(whole):
    result = whole[0]
    cost, limit = cost_and_limit(tiny_space(), BUDGET)
    metrics = result.metrics
    assert limit == cost.full // 2 == metrics["budget_macs"]
    assert cost.full * 0.45 - 1 <= cost(result.shape) == metrics["shape_macs"] <= limit
    assert metrics["shape_macs_ratio"] == cost(result.shape) / cost.full
    assert 0 <= metrics["held_out_accuracy"] <= 1
    assert (metrics["epochs"], metrics["seed"]) == (3, 0)
    assert all(len(values) == 3 for values in result.history.values())
    assert 0.2 * cost.full < result.history["expected_macs"][0] < cost.full
    json.dumps([metrics, result.history, result.shape.to_json()])


def test_the_temperature_falls_along_a_cosine(whole):
    watch = whole[1]
    np.testing.assert_allclose(watch.temperatures, [5.0, 2.55, 0.1], rtol=1e-6)
    schedule = TemperatureSchedule(tiny_search(epochs=600))
    for epoch in (0, 1, 150, 598, 599):
        expected = 0.1 + (5 - 0.1) * (1 + math.cos(math.pi * epoch / 599)) / 2
        assert schedule.at(epoch) == pytest.approx(expected)
    assert TemperatureSchedule(tiny_search(epochs=1)).at(0) == 0.1


def test_other_seeds_start_elsewhere(whole):
    """Tests only the start, since a search for each seed would take long."""
    logits = [build_supernet(tiny_space(), seed=seed).gates.width_logits[0].numpy() for seed in (0, 0, 1)]
    assert np.array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3


@pytest.mark.parametrize("axes", ["width", "depth"])
def test_what_is_not_searched_has_no_logits_and_stays(axes):
    space = tiny_space(axes=axes)
    monitor = make_monitor(1.0, space)
    gates = monitor.supernet.gates
    searched, other = (gates.width_logits, gates.depth_logits)[:: 1 if axes == "width" else -1]
    assert searched
    assert not other
    assert len(gates.trainable_variables) == len(searched)
    monitor()
    if axes == "width":
        assert monitor.shape.depths == {"stage_1": 2}
    else:
        assert monitor.shape.widths == {unit.name: unit.width for unit in space.units}
    assert monitor.entropies()[1 if axes == "width" else 0] == 0


@pytest.fixture(scope="module")
def batches():
    dataset, _ = tiny_task().searching(32)
    return list(dataset(0).take(2))


def make_searcher(*, frozen: tuple[str, ...] = ()) -> Searcher:
    space = tiny_space()
    keras.utils.set_random_seed(0)
    supernet = build_supernet(space)
    freeze(supernet.gates, frozen)
    searcher = Searcher(supernet, CLASSES, ExpectedCost(CostModel(space)), CostTarget(0.3))
    searcher.compile(sgd(0.05, l2=5e-4), arch_adam(0.1))
    return searcher


def values(variables) -> list[np.ndarray]:
    return [np.array(variable) for variable in variables]


def test_each_half_trains_its_own_variables(batches):
    searcher = make_searcher()
    supernet = searcher.supernet
    state = [*searcher.variables, *searcher.optimizer.variables, *searcher.arch_optimizer.variables]
    start = values(state)

    def after(batch, lr: float = 0.05) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Weights and logits after one step from the start."""
        for variable, value in zip(state, start, strict=True):
            variable.assign(value)
        searcher.optimizer.learning_rate = lr
        searcher.train_step(batch)
        return values(supernet.weight_variables), values(supernet.architecture_variables)

    def difference(one, other) -> float:
        return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))

    (weights, architecture), (other_weights, other_architecture) = batches
    first = after((weights, architecture))
    assert difference(first[0], after((weights, other_architecture))[0]) == 0
    assert difference(first[0], after((other_weights, architecture))[0]) > 1e-3
    # With weights that stand still, the logits depend on the architecture's half alone.
    still = after((weights, architecture), lr=0.0)
    assert difference(still[1], after((other_weights, architecture), lr=0.0)[1]) == 0
    assert difference(still[1], after((weights, other_architecture), lr=0.0)[1]) > 1e-6


def test_frozen_logits_never_change(batches):
    searcher = make_searcher(frozen=("block1_conv1", "stage_1"))
    gates = searcher.supernet.gates
    frozen = [gates.logits_of(name) for name in ("block1_conv1", "stage_1")]
    before, others = values(frozen), values(gates.trainable_variables)
    searcher.train_step(batches[0])
    for one, other in zip(before, values(frozen), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(others) == 4
    assert all(np.abs(a - b).max() > 0 for a, b in zip(others, values(gates.trainable_variables), strict=True))


def make_monitor(scale: float, space: SearchSpace | None = None) -> SearchMonitor:
    """A monitor whose distributions are the more decided, the larger the scale."""
    cost, limit = cost_and_limit(space or tiny_space(), Budget.parse("macs:0.7"))
    supernet = build_supernet(cost.space)
    rng = np.random.default_rng(0)
    for variable in supernet.architecture_variables:
        variable.assign(scale * rng.normal(size=variable.shape))
    score = mock.Mock(return_value=0.5, objective=CLASSES)
    return SearchMonitor(supernet, cost, limit, tiny_search(), score, BestShape(cost.space))


def test_entropy_and_its_warning():
    history = {name: [0.5] for name in ("expected_cost", "argmax_cost", "val_accuracy", "seconds")}
    decided, undecided = make_monitor(20.0), make_monitor(0.1)
    assert decided.result(history).warnings == ()
    warnings = undecided.result(history).warnings
    assert [warning.split()[1] for warning in warnings] == ["width", "depth"]
    assert all("`arch_lr`" in warning for warning in warnings)
    rows = [np.array(tf.nn.softmax(variable)) for variable in undecided.supernet.gates.width_logits]
    shares = [-(row * np.log(row)).sum() / np.log(len(row)) for row in rows]
    assert undecided.entropies()[0] == pytest.approx(np.mean(shares), rel=1e-5)


def test_an_unreachable_budget_is_refused_before_data_is_read():
    class NoTask:
        """Fails when it is used."""

        def __getattr__(self, name):
            raise AssertionError(name)

    for text, message in (("macs:0.01", r"at least macs:0\.\d+"), ("params:1M", "more than tiny costs")):
        with pytest.raises(UserError, match=message):
            run_search(tiny_space(), NoTask(), Budget.parse(text), tiny_search(), strategy=make_strategy("one_device"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature_end": 0.0}, "temperature_end"),
        ({"temperature_start": float("nan")}, "temperature_start"),
        ({"cost_weight": -1.0}, "cost_weight"),
        ({"split_share": 1.0}, "split_share"),
        ({"arch_betas": (0.5, 1.0)}, "arch_betas"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"cost_driver": "mean"}, "cost_driver"),
        ({"init_logits": "high"}, "init_logits"),
        ({"keep_shape": "first"}, "keep_shape"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_search(**changes)


def test_short_schedules_move_logits_faster():
    rates = [SearchSettings().arch_rate(steps) for steps in (10, 1_000, 10**6)]
    assert rates == [0.1, 0.02, 1e-3]
    assert SearchSettings(arch_lr=0.3).arch_rate(10) == 0.3


@pytest.mark.slow
def test_two_replicas_search_and_score(two_replicas):
    teacher = tiny_network()
    settings = tiny_search(from_teacher=True, init_logits="budget")
    result = search(settings=settings, strategy=two_replicas, teacher=teacher)
    cost, limit = cost_and_limit(tiny_space(), BUDGET)
    assert cost(result.shape) <= limit
    assert 0 <= result.metrics["held_out_accuracy"] <= 1
    assert result.history["expected_macs"][0] == pytest.approx(limit, rel=0.1)


def test_a_start_from_the_teacher_needs_one():
    with pytest.raises(UserError, match="needs a trained teacher"):
        search(settings=tiny_search(from_teacher=True))
