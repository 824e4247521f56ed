"""Batches in parts: the same gradients, means and errors as of whole batches."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.qat.finetune import fine_tune
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.qat.twin import make_twin
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.accumulation import over_parts
from tas_tf.training.network import logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import check_batch_size, make_strategy
from tests.digits import search_quickly

BATCH = 24


def network(seed: int = 0) -> keras.Model:
    """A network of residual blocks without batch normalisation, which would see parts on their own."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(images)
    for number in (1, 2):
        y = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        x = keras.layers.Add(name=f"add{number}")([x, y])
    outputs = keras.layers.Dense(10, "softmax", name="classes")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(images, outputs, name="plain")


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load("digits", train_limit=4 * BATCH)


def assert_close(first: keras.Model, second: keras.Model, apart_from: keras.Model) -> None:
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    moved = [abs(one - other).max() for one, other in zip(first.get_weights(), apart_from.get_weights(), strict=True)]
    assert max(moved) > 1e-2


@pytest.mark.parametrize("parts", [2, 3])
def test_the_mean_over_parts(parts):
    numbers = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    seen = []

    def compute(first, second, none):
        assert none is None
        seen.append(first.shape[0])
        return [tf.reduce_mean(first, 0), (tf.reduce_mean(second),)]

    mean, (whole,) = over_parts(compute, [tf.constant(numbers), tf.constant(numbers[:, 0]), None], parts)
    np.testing.assert_allclose(mean, numbers.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(whole, numbers[:, 0].mean(), rtol=1e-6, atol=1e-7)
    assert seen == [12 // parts] * parts


def test_gradients_that_are_missing_stay_missing():
    mean = over_parts(lambda x: [tf.reduce_mean(x), None], [tf.constant([1.0, 3.0])], 2)
    assert float(mean[0]) == 2.0
    assert mean[1] is None


def test_a_part_waits_for_the_one_before():
    """Otherwise, TensorFlow would compute them at the same time, and memory would hold the activations of all."""

    @tf.function
    def run(images):
        return over_parts(lambda part: tf.reduce_sum(tf.sin(part, name="computed")), [images], 3)

    graph = run.get_concrete_function(tf.TensorSpec([6, 2])).graph
    computed = [one for one in graph.get_operations() if one.type == "Sin"]
    assert len(computed) == 3
    for before, after in itertools.pairwise(computed):
        todo, reached = [after], set()
        while todo:
            operation = todo.pop()
            reached.add(operation)
            todo += {*operation.control_inputs, *(one.op for one in operation.inputs)} - reached
        assert before in reached


@pytest.mark.parametrize("taught", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_training_in_parts_is_the_same(task, taught):
    model = network()
    model.get_layer("conv1").kernel_regularizer = keras.regularizers.L2(0.01)
    space = SearchSpace.from_model(model)
    teacher = logits_of(network(1), space) if taught else None
    start = logits_of(model, space)

    def train(accumulate):
        settings = TrainSettings(epochs=2, warmup_epochs=0, batch_size=BATCH, lr=0.1, accumulate=accumulate)
        options = {"teacher": teacher, "start": start, "verbose": 0, "strategy": make_strategy("one_device")}
        return train_network(space, Shape.full(space), task, settings, **options)

    whole, parts = train(1), train(4)
    assert_close(parts.model, whole.model, model)
    assert parts.metrics["train_accuracy"] == pytest.approx(whole.metrics["train_accuracy"])
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_search_in_parts_is_the_same(task):
    model = network()
    whole, parts = (
        search_quickly(model, task, batch_size=BATCH, arch_lr=0.1, accumulate=accumulate) for accumulate in (1, 2)
    )
    for name in ("width_logits", "depth_logits"):
        found, wanted = ([np.array(one) for one in getattr(result.supernet.gates, name)] for result in (parts, whole))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(parts.history["expected_macs"], whole.history["expected_macs"], rtol=1e-4)


@pytest.mark.slow
def test_on_two_replicas(task, two_replicas):
    model = network()
    space = SearchSpace.from_model(model)

    def train(strategy, accumulate):
        settings = TrainSettings(epochs=1, warmup_epochs=0, batch_size=BATCH, lr=0.1, accumulate=accumulate)
        start = logits_of(model, space)
        return train_network(space, Shape.full(space), task, settings, strategy=strategy, start=start, verbose=0).model

    assert_close(train(two_replicas, 3), train(make_strategy("one_device"), 1), model)


def test_fine_tuning_in_parts_is_the_same(task):
    model = network()

    def tune(accumulate):
        twin = make_twin(model)
        settings = FineTuneSettings(epochs=1, batch_size=BATCH, lr=0.1, accumulate=accumulate)
        fine_tune(twin, task, settings, strategy=make_strategy("one_device"), verbose=0)
        return twin

    assert_close(tune(3), tune(1), model)


def test_a_batch_that_cannot_be_split_is_told(two_replicas):
    with pytest.raises(UserError, match=r"divisible by 5: `accumulate`=5\. Received: 24\. Use 20 or 25, or another"):
        check_batch_size(make_strategy("one_device"), 24, 5)
    with pytest.raises(UserError, match=r"10: `accumulate`=5 parts on each of 2 replicas\. .* Use 20 or 30"):
        check_batch_size(two_replicas, 24, 5)
    check_batch_size(two_replicas, 24, 4)
