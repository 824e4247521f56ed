"""A teacher that is asked once teaches the same as one that is asked in every step."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.form import Form
from tas_tf.data.streamed import open_data
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.training.answers import Answers, Turns, kept_steps, kept_views
from tas_tf.training.checkpoint import Saving
from tas_tf.training.network import Trainee, logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import CLASSES, tiny_network, tiny_space, tiny_task
from tests.networks import randomize

SETTINGS = TrainSettings(epochs=5, warmup_epochs=0, batch_size=32, lr=0.05, alpha=0.5)


@pytest.fixture(scope="module")
def teacher():
    return logits_of(randomize(tiny_network()), tiny_space())


def batches(dataset: tf.data.Dataset) -> list[list[np.ndarray]]:
    return [list(batch) for batch in dataset.as_numpy_iterator()]


def assert_equal(found, wanted) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_each_batch_gets_the_logits_of_its_images(strategy):
    strategy = make_strategy(strategy)
    with strategy.scope():
        teacher = logits_of(randomize(tiny_network()), tiny_space())
    dataset, _ = tiny_task(pad_crop=1).training(32)
    found = batches(Answers(teacher, strategy).to(functools.partial(dataset, 1), 4)())
    assert_equal([batch[:2] for batch in found], batches(dataset(1).take(4)))
    for images, _, logits in found:
        np.testing.assert_allclose(logits, teacher(images, training=False), rtol=1e-5, atol=1e-5)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """One element for each time that a teacher is asked."""
    times, ask = [], Answers._ask
    monkeypatch.setattr(Answers, "_ask", lambda *args: times.append(1) or ask(*args))
    return times


def test_the_teacher_is_asked_once_and_later_epochs_repeat_the_first_ones(teacher, asked):
    dataset, steps = tiny_task(pad_crop=1).training(32)
    turns = Turns(dataset, Answers(teacher, make_strategy("one_device")), steps_per_epoch=steps, views=2)
    for epoch in range(5):
        found = [batch[:2] for batch in batches(turns(epoch))]
        assert_equal(found, batches(dataset(epoch % 2).take(steps)))
        assert len(asked) == min(epoch + 1, 2)
    assert turns(0).element_spec == turns.element_spec


# The slow one takes long to trace; what replicas get is tested above.
@pytest.mark.parametrize("strategy", ["one_device", pytest.param("mirrored", marks=pytest.mark.slow)])
def test_kept_logits_teach_what_a_teacher_does_that_is_asked_in_every_step(strategy):
    strategy, space, task = make_strategy(strategy), tiny_space(), tiny_task(pad_crop=1)
    with strategy.scope():
        teacher = logits_of(randomize(tiny_network()), space)
    dataset, steps = task.training(32)
    turns = Turns(dataset, Answers(teacher, strategy), steps_per_epoch=steps, views=3)
    found = []
    for data in (dataset, turns):
        trainee = Trainee(space, Shape.full(space), SETTINGS, CLASSES, strategy=strategy, teacher=teacher)
        initial = trainee.network.get_weights()
        trainee.train(data, lr=0.05, epochs=3, steps_per_epoch=steps, verbose=0)
        found.append(trainee.network.get_weights())
    for before, wanted, ours in zip(initial, *found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
        assert np.abs(wanted - before).max() > 1e-3


@pytest.mark.slow
def test_an_interrupted_training_with_views_ends_like_an_uninterrupted_one(teacher, asked, tmp_path):
    space = tiny_space()

    def train(folder, **options):
        settings = dataclasses.replace(SETTINGS, views=2)
        return train_network(
            *(space, Shape.full(space), tiny_task(), settings),
            strategy=make_strategy("one_device"),
            teacher=teacher,
            saving=None if folder is None else Saving(folder),
            verbose=0,
            **options,
        )

    def stop(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    wanted, found = (train(tmp_path / name).model.get_weights() for name in "ba")
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)
    asked.clear()
    train(tmp_path / "a")
    assert not asked


def test_data_in_another_order_are_noticed(teacher):
    dataset, _ = tiny_task().training(32)
    epochs = iter(range(9))
    answered = Answers(teacher, make_strategy("one_device")).to(lambda first_step: dataset(next(epochs)), 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="another order"):
        batches(answered())


def test_a_training_on_them_ends_with_a_clear_error(teacher):
    dataset, steps = tiny_task().training(32)
    epochs = iter(range(99))
    turns = Turns(
        lambda epoch, first_step=0: dataset(next(epochs)),
        Answers(teacher, make_strategy("one_device")),
        steps_per_epoch=steps,
        views=2,
    )
    trainee = Trainee(
        tiny_space(), Shape.full(tiny_space()), SETTINGS, CLASSES, strategy=make_strategy("one_device"), teacher=teacher
    )
    with pytest.raises(UserError, match="came in another order when they were read again, at step 1 of epoch 1"):
        trainee.train(turns, lr=0.05, epochs=2, steps_per_epoch=steps, verbose=0)


def test_logits_are_kept_only_if_the_data_repeat_and_there_is_room():
    images, labels = np.zeros([64, 8, 8, 1], np.float32), np.arange(64) % 10
    options = {"form": Form.of_images(8, 8, 1), "objective": CLASSES}
    arrays = open_data((images, labels), **options)
    stream = open_data(tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(64), **options)
    settings = TrainSettings(batch_size=32, views=3)
    assert [kept_views(data, settings) for data in (arrays, stream, tiny_task())] == [3, 0, 3]
    assert [kept_steps(data, 32) for data in (arrays, stream)] == [2**30 // (4 * 10 * 32), 0]
    # Six steps an epoch.
    assert kept_views(tiny_task(), dataclasses.replace(settings, views=2**30 // (4 * 10 * 32 * 6) + 1)) == 0


def test_arrays_repeat():
    images = np.random.default_rng(0).normal(size=[64, 8, 8, 1]).astype(np.float32)
    data = open_data((images, np.arange(64) % 10), form=Form.of_images(8, 8, 1), objective=CLASSES)
    dataset, steps = data.training(16)
    for epoch in (0, 2):
        assert_equal(batches(dataset(epoch).take(steps)), batches(dataset(epoch).take(steps)))
