"""From data to a tested network of a shape."""

import json

import keras
import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tas_tf.training.evaluation import evaluate
from tas_tf.training.network import check_above_chance, check_fits, inherited, logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_space, tiny_task
from tests.networks import randomize

SETTINGS = TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.05)


@pytest.fixture(scope="module")
def task():
    return tiny_task()


@pytest.fixture(scope="module")
def teacher() -> keras.Model:
    return randomize(tiny_network())


def train(task, shape_seed: int = 0, settings: TrainSettings = SETTINGS, **options):
    space = tiny_space()
    return train_network(
        space,
        Shape.random(space, shape_seed),
        task,
        settings,
        strategy=options.pop("strategy", make_strategy("one_device")),
        verbose=0,
        **options,
    )


def weights_of(model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights]


def test_the_network_is_that_of_the_shape_and_its_figures_are_its_own(task, teacher):
    space = tiny_space()
    shape = Shape.random(space, 0)
    result = train(task, teacher=logits_of(teacher, space))
    wanted = build_student(space, shape)
    assert [weight.shape for weight in result.model.weights] == [weight.shape for weight in wanted.weights]
    assert result.metrics["macs"] == CostModel(space)(shape)
    assert result.metrics["params"] == sum(int(np.prod(weight.shape)) for weight in wanted.trainable_weights) + sum(
        int(np.prod(weight.shape)) for weight in wanted.non_trainable_weights
    )
    assert (result.metrics["kd"], result.metrics["epochs"], result.metrics["seed"]) == (True, 1, 0)
    json.dumps(result.metrics)
    # The original ends in softmax, hence so does the student; its accuracy is that of the test set.
    images, labels = task.test_arrays()
    probabilities = result.model.predict(images, verbose=0)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    assert result.metrics["accuracy"] == pytest.approx((probabilities.argmax(-1) == labels).mean())
    assert not result.model.compiled


@pytest.mark.slow
def test_the_same_seed_gives_the_same_network(task):
    first, second, other = (
        train(task, settings=TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.05, seed=seed))
        for seed in (0, 0, 1)
    )
    for one, two in zip(weights_of(first.model), weights_of(second.model), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(weights_of(first.model)[0] - weights_of(other.model)[0]).max() > 1e-3
    assert not first.metrics["kd"]


def test_inherited_weights_are_where_training_starts(task, teacher):
    space = tiny_space()
    shape = Shape.random(space, 0)
    still = TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.0)
    expected = build_student(space, shape)
    inherit_weights(expected, teacher, space, shape)
    result = train(task, settings=still, start=inherited(teacher, space, shape))
    trained = {weight.path for weight in result.model.trainable_weights}
    for weight, other in zip(result.model.weights, expected.weights, strict=True):
        if weight.path in trained:
            np.testing.assert_array_equal(weight, other)


def test_two_replicas_train(task, teacher, two_replicas):
    space = tiny_space()
    with two_replicas.scope():
        logits = logits_of(teacher, space)
    result = train(task, teacher=logits, strategy=two_replicas)
    assert 0 <= result.metrics["accuracy"] <= 1
    assert result.metrics["recalibrated"]
    assert "Mirrored" not in type(result.model.weights[0].value).__name__


@pytest.mark.parametrize("activation", ["softmax", None])
def test_logits_are_those_of_the_model(task, activation):
    model = randomize(tiny_network(activation))
    space = SearchSpace.from_graph(Graph.from_model(model))
    images, labels = task.test_arrays()
    logits = logits_of(model, space)(images).numpy()
    outputs = model.predict(images, verbose=0)
    if activation == "softmax":
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(powers / powers.sum(-1, keepdims=True), outputs, atol=1e-5)
    else:
        np.testing.assert_allclose(logits, outputs, atol=1e-4)
    accuracy = evaluate(logits_of(model, space), task.test(), task.objective)["accuracy"]
    assert accuracy == pytest.approx((outputs.argmax(-1) == labels).mean())


def test_models_that_do_not_fit_the_data(task):
    for shape, classes, message in (
        ((8, 8, 3), 10, "takes images of 8x8x3, but those of `digits` are 8x8x1"),
        ((8, 8, 1), 7, "has 7 classes, but `digits` has 10"),
    ):
        images = keras.Input(shape)
        features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(images))
        model = keras.Model(images, keras.layers.Dense(classes)(features))
        with pytest.raises(UserError, match=message):
            check_fits(model, SearchSpace.from_graph(Graph.from_model(model)), task)


def test_chance_level(task):
    labels = task.source.labels("test")
    chance = np.bincount(labels).max() / len(labels)
    for accuracy in (0.0, chance, chance + 0.05):
        with pytest.raises(UserError, match="near chance level"):
            check_above_chance({"accuracy": accuracy}, task)
    check_above_chance({"accuracy": chance + 0.15}, task)


@pytest.mark.parametrize("changes", [{"alpha": 1.5}, {"temperature": 0.0}, {"temperature": -1.0}])
def test_settings_that_make_no_sense(changes):
    with pytest.raises(UserError, match=r"`(alpha|temperature)` must be"):
        TrainSettings(**changes)


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_statistics_are_averaged_anew_where_training_was_too_short_for_them(two_replicas, replicas):
    """Momentum as in MobileNetV2: after 66 steps, running statistics are still far from those of the images."""
    slow = keras.models.clone_model(tiny_network(), clone_function=_with_slow_statistics)
    space = SearchSpace.from_graph(Graph.from_model(slow))
    task = Task.load("digits")
    strategy = two_replicas if replicas == 2 else make_strategy("one_device")
    settings = TrainSettings(epochs=6, warmup_epochs=0, batch_size=128, lr=0.1)
    result = train_network(space, Shape.full(space), task, settings, strategy=strategy, verbose=0)
    assert result.metrics["recalibrated"]
    assert result.metrics["accuracy"] > 0.7
    assert result.model.get_layer("stem_bn").momentum == 0.999
    stem = keras.Model(result.model.input, result.model.get_layer("stem").output)
    batches = [np.asarray(stem(images)) for images, _ in task.shuffled(task.indices, 128, 20)]
    mean = np.mean([batch.mean((0, 1, 2)) for batch in batches], axis=0)
    np.testing.assert_allclose(result.model.get_layer("stem_bn").moving_mean.numpy(), mean, atol=1e-4)


def _with_slow_statistics(layer: keras.Layer) -> keras.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["momentum"] = 0.999
    return type(layer).from_config(config)


def test_statistics_that_have_settled_are_left_alone(task):
    result = train(task, settings=TrainSettings(epochs=16, warmup_epochs=0, batch_size=32, lr=0.05))
    assert not result.metrics["recalibrated"]
