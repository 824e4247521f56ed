"""Recomputed activations: the same results, gradients, states and trainings, from a smaller graph of what is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import logits_of, train_network
from tas_tf.training.recompute import Recomputing, make_forward
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import search_quickly

BATCH = 24


@keras.saving.register_keras_serializable(package="tests")
class Noisy(keras.layers.Layer):
    """A layer of its own: random numbers, a loss, a state, and no argument that tells the mode."""

    def build(self, shape):
        self.seeds = keras.random.SeedGenerator(3)
        self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.seen.assign(self.seen + keras.ops.mean(keras.ops.cast(inputs, "float32")))
        self.add_loss(keras.ops.mean(keras.ops.square(keras.ops.cast(inputs, "float32"))))
        return inputs * keras.random.uniform(keras.ops.shape(inputs), 0.5, 1.5, dtype=inputs.dtype, seed=self.seeds)


def everything(*, blocks: int = 6, synchronized: bool = False) -> keras.Model:
    """Two inputs and outputs, shared layers with states in several segments, dropout, a model inside, added losses."""
    layers = keras.layers

    def norm() -> keras.Layer:
        return layers.BatchNormalization(momentum=0.9, synchronized=synchronized)

    inner_images = keras.Input((8, 8, 6))
    inner = layers.Dropout(0.2)(norm()(layers.Conv2D(6, 3, padding="same")(inner_images)))
    inner = keras.Model(inner_images, inner)
    shared, shared_norm, dropout = layers.Conv2D(6, 3, padding="same"), norm(), layers.Dropout(0.3)
    images, numbers = keras.Input((8, 8, 3), name="images"), keras.Input((4,), name="numbers")
    x = layers.RandomFlip()(images)
    x = layers.Conv2D(6, 3, padding="same", kernel_regularizer="l2", activity_regularizer="l2")(x)
    for number in range(blocks):
        y = layers.Conv2D(6, 3, padding="same")(layers.Activation("relu")(norm()(x)))
        if number in (0, 4):
            y = shared_norm(shared(y))
        y = {1: Noisy(), 2: inner, 5: inner}.get(number, dropout)(y)
        x = x + y * 0.5
        if number == 2:
            side = layers.Dense(2, name="side")(layers.GlobalAveragePooling2D()(x))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(3)(numbers)])
    outputs = {"main": layers.Dense(4, name="main")(x), "side": side}
    return keras.Model({"images": images, "numbers": numbers}, outputs)


def gradients_and_states(recompute, *, policy="float32", strategy=None, in_graph=True, **options):
    """Gradients and outputs of a second step, and all variables after it, from equal weights and states."""
    strategy = strategy or make_strategy("one_device")
    keras.utils.set_random_seed(3)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        with strategy.scope():
            model = everything(**options)
            forward = make_forward(model, recompute=recompute)
    finally:
        keras.config.set_dtype_policy(before)
    batch = {
        "images": tf.random.stateless_normal([4, 8, 8, 3], (1, 2)),
        "numbers": tf.random.stateless_normal([4, 4], (3, 4)),
    }

    @tf.autograph.experimental.do_not_convert
    def step(batch):
        with tf.GradientTape() as tape:
            outputs, losses = forward(batch)
            errors = [tf.reduce_mean(tf.square(tf.cast(one, tf.float32))) for one in outputs.values()]
            loss = tf.add_n([tf.cast(one, tf.float32) for one in (*errors, *losses)])
        sources = [one.value for one in model.trainable_variables]
        return outputs, tape.gradient(loss, sources), len(losses)

    @tf.autograph.experimental.do_not_convert
    def run(batch):
        return strategy.run(step, args=(batch,))

    run = tf.function(run) if in_graph else run
    run(batch)
    found = tf.nest.map_structure(lambda one: strategy.experimental_local_results(one)[-1], run(batch))
    if recompute:
        assert len(forward._segments) >= 2
    return tf.nest.map_structure(np.array, found), [one.numpy() for one in model.variables]


def assert_all_close(found, wanted, **tolerance) -> None:
    tf.nest.map_structure(lambda one, other: np.testing.assert_allclose(one, other, **tolerance), found, wanted)


@pytest.mark.parametrize(
    ("policy", "in_graph"),
    [("float32", True), ("float32", False), pytest.param("mixed_bfloat16", True, marks=pytest.mark.slow)],
)
def test_gradients_and_states_are_those_of_the_model(policy, in_graph):
    found, states = gradients_and_states(True, policy=policy, in_graph=in_graph)
    wanted, wanted_states = gradients_and_states(False, policy=policy, in_graph=in_graph)
    assert_all_close(found, wanted, rtol=1e-5, atol=1e-6)
    # Running statistics, seeds and counts: updated once a step.
    assert_all_close(states, wanted_states, rtol=1e-6, atol=1e-7)
    assert max(np.abs(one).max() for one in found[1]) > 0.1


def test_two_replicas_that_share_statistics(two_replicas):
    options = {"strategy": two_replicas, "synchronized": True, "blocks": 3}
    found, states = gradients_and_states(True, **options)
    wanted, wanted_states = gradients_and_states(False, **options)
    # Keras mixes up the losses of replicas that wait for each other; ours are those of the replica.
    assert_all_close(found[:2], wanted[:2], rtol=1e-4, atol=1e-5)
    assert_all_close(states, wanted_states, rtol=1e-6, atol=1e-7)


def test_convolutions_are_computed_again_after_those_behind_them():
    """All but those of the last segment, and only when the gradient of what follows is there."""
    x = images = keras.Input((8, 8, 3))
    for _ in range(9):
        x = keras.layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    model = keras.Model(images, x)
    forward = Recomputing(model)

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def run(batch):
        with tf.GradientTape() as tape:
            outputs, _ = forward(batch)
        return tape.gradient(outputs, [one.value for one in model.trainable_variables])

    operations = run.get_concrete_function(tf.TensorSpec([2, 8, 8, 3])).graph.get_operations()
    convolutions = [one for one in operations if one.type == "Conv2D"]
    last = len(forward._segments[-1]._calls)
    assert len(convolutions) == 9 + (9 - last)
    of_gradients = {one for one in operations if one.type == "Conv2DBackpropInput"}
    for again in convolutions[9:]:
        todo, before = [again], set()
        while todo:
            operation = todo.pop()
            before.add(operation)
            todo += {*operation.control_inputs, *(one.op for one in operation.inputs)} - before
        assert before & of_gradients
    for first in convolutions[:9]:
        assert not {one.op for one in first.inputs} & of_gradients


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load("digits", train_limit=4 * BATCH)


def network(seed: int = 0) -> keras.Model:
    """A residual network with batch normalisation, dropout and penalties."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, padding="same", kernel_regularizer=keras.regularizers.L2(0.01), name="stem")(images)
    for number in range(4):
        y = keras.layers.Conv2D(6, 3, padding="same", name=f"conv{number}")(x)
        y = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(y)
        y = keras.layers.Dropout(0.1, name=f"dropout{number}")(keras.layers.ReLU(name=f"relu{number}")(y))
        x = keras.layers.Add(name=f"add{number}")([x, y])
    outputs = keras.layers.Dense(10, "softmax", name="classes")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(images, outputs, name="residual")


def train(task, *, taught=False, strategy=None, saving=None, callbacks=(), **settings):
    """Trains a network of four blocks on digits."""
    model = network()
    space = SearchSpace.from_model(model)
    teacher = logits_of(network(1), space) if taught else None
    settings = TrainSettings(**{"epochs": 2, "warmup_epochs": 0, "batch_size": BATCH, "lr": 0.1, **settings})
    options = {"teacher": teacher, "start": logits_of(model, space), "verbose": 0, "saving": saving}
    strategy = strategy or make_strategy("one_device")
    return train_network(space, Shape.full(space), task, settings, strategy=strategy, callbacks=callbacks, **options)


@pytest.fixture(scope="module")
def plain(task):
    """A training on labels that keeps all activations."""
    return train(task)


def test_a_training_is_the_same(task, plain):
    assert_same_training(train(task, recompute=True), plain)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_distillation_is_the_same(task, accumulate):
    options = {"taught": True, "accumulate": accumulate}
    assert_same_training(train(task, recompute=True, **options), train(task, **options))


def assert_same_training(recomputed, plain) -> None:
    assert_all_close(recomputed.model.get_weights(), plain.model.get_weights(), rtol=1e-5, atol=1e-5)
    for name in ("loss", "train_accuracy"):
        assert recomputed.metrics[name] == pytest.approx(plain.metrics[name], rel=1e-4)


@pytest.mark.slow
def test_a_training_on_two_replicas_is_the_same(task, two_replicas):
    recomputed, plain = (train(task, strategy=two_replicas, recompute=one) for one in (True, False))
    assert_same_training(recomputed, plain)


class _Stops(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("before", [pytest.param(True, marks=pytest.mark.slow), False])
def test_an_interrupted_training_goes_on_with_or_without(task, plain, tmp_path, before):
    """Checkpoints are the same, so that a training which runs out of memory can go on with recomputed activations."""
    saving = Saving(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(task, recompute=before, saving=saving, callbacks=[_Stops()])
    resumed = train(task, recompute=True, saving=saving)
    assert_all_close(resumed.model.get_weights(), plain.model.get_weights(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_search_is_the_same(task):
    model = network()
    plain, recomputed = (
        search_quickly(model, task, batch_size=BATCH, arch_lr=0.1, recompute=recompute) for recompute in (False, True)
    )
    found, wanted = ([one.numpy() for one in result.supernet.variables] for result in (recomputed, plain))
    assert_all_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_masks_are_refused():
    words = keras.Input((5,), dtype="int32")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(7, 3, mask_zero=True, name="words")(words))
    with pytest.raises(UserError, match="`recompute` can't run networks with masks, which words makes"):
        Recomputing(keras.Model(words, x))


def test_fine_tuning_for_8_bits_refuses_it():
    with pytest.raises(UserError, match="`recompute` isn't supported by fine-tuning for 8 bits"):
        FineTuneSettings(recompute=True)
