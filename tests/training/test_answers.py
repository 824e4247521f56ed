"""A teacher that is asked once teaches the same as one that is asked in every step."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.streamed import open_data
from tas_tf.space.shape import Shape
from tas_tf.training.answers import Answers, are_kept, in_turns, kept_views
from tas_tf.training.network import logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_space, tiny_task
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
    found = batches(Answers(teacher, strategy).to(lambda: dataset(1), 4)())
    assert_equal([batch[:2] for batch in found], batches(dataset(1).take(4)))
    for images, _, logits in found:
        np.testing.assert_allclose(logits, teacher(images, training=False), rtol=1e-5, atol=1e-5)


def test_the_teacher_is_asked_once_and_later_epochs_repeat_the_first_ones(teacher, monkeypatch):
    asked = []
    ask = Answers._ask
    monkeypatch.setattr(Answers, "_ask", lambda *args: asked.append(1) or ask(*args))
    dataset, steps = tiny_task(pad_crop=1).training(32)
    answers = Answers(teacher, make_strategy("one_device"))
    turns = in_turns(dataset, answers, steps_per_epoch=steps, views=2)
    assert not asked
    for epoch in range(5):
        found = [batch[:2] for batch in batches(turns(epoch))]
        assert_equal(found, batches(dataset(epoch % 2).take(steps)))
        assert len(asked) == min(epoch + 1, 2)


def test_training_with_as_many_views_as_epochs_is_the_same_as_with_a_teacher_in_every_step(teacher):
    """But for the last epoch, which differs if there is one view less."""
    space, one = tiny_space(), make_strategy("one_device")

    def weights(**changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        shape = Shape.full(space)
        return train_network(
            space, shape, tiny_task(), settings, strategy=one, teacher=teacher, verbose=0
        ).model.get_weights()

    plain = weights()
    for wanted, found in zip(plain, weights(views=5), strict=True):
        np.testing.assert_array_equal(wanted, found)
    assert any(not np.array_equal(wanted, found) for wanted, found in zip(plain, weights(views=4), strict=True))


def test_an_interrupted_training_with_views_ends_like_an_uninterrupted_one(teacher, tmp_path):
    space = tiny_space()

    def train(folder, epochs=5, **options):
        settings = dataclasses.replace(SETTINGS, views=2, epochs=epochs)
        return train_network(
            *(space, Shape.full(space), tiny_task(), settings),
            strategy=make_strategy("one_device"),
            teacher=teacher,
            checkpoint_dir=folder,
            verbose=0,
            **options,
        )

    def stop(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    for wanted, found in zip(
        train(tmp_path / "b").model.get_weights(), train(tmp_path / "a").model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(wanted, found)


def test_data_in_another_order_are_noticed(teacher):
    dataset, _ = tiny_task().training(32)
    epochs = iter(range(9))
    answered = Answers(teacher, make_strategy("one_device")).to(lambda: dataset(next(epochs)), 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="another order than before"):
        batches(answered())


def test_logits_are_kept_only_if_the_data_repeat_and_there_is_room():
    images, labels = np.zeros([64, 8, 8, 1], np.float32), np.arange(64) % 10
    options = {"image_shape": (8, 8, 1), "num_classes": 10}
    arrays = open_data((images, labels), **options)
    stream = open_data(tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(64), **options)
    settings = TrainSettings(batch_size=32, views=3)
    assert [kept_views(data, settings) for data in (arrays, stream, tiny_task())] == [3, 0, 3]
    assert are_kept(arrays, batch_size=32, steps=800_000)
    assert not are_kept(arrays, batch_size=32, steps=900_000)


def test_arrays_repeat():
    images = np.random.default_rng(0).normal(size=[64, 8, 8, 1]).astype(np.float32)
    data = open_data((images, np.arange(64) % 10), image_shape=(8, 8, 1), num_classes=10)
    dataset, steps = data.training(16)
    for epoch in (0, 2):
        assert_equal(batches(dataset(epoch).take(steps)), batches(dataset(epoch).take(steps)))
