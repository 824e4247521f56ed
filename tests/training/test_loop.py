import os
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.interruption import Terminated, listening
from tas_tf.objectives.classification import Classification
from tas_tf.training import loop
from tas_tf.training.checkpoint import Saving, saved_progress
from tas_tf.training.distill import distiller
from tas_tf.training.loop import SECONDS, fit
from tas_tf.training.optimizers import sgd
from tas_tf.training.strategy import make_strategy

STEPS = 4


def values(variables):
    return [np.array(variable) for variable in variables]


def assert_close(first, second, tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def run(model, epochs_dataset, *, epochs=3, strategy=None, **options):
    strategy = strategy or make_strategy("one_device")
    return fit(model, epochs_dataset, strategy=strategy, epochs=epochs, steps_per_epoch=STEPS, verbose=0, **options)


class KillAfter(keras.callbacks.Callback):
    """Simulates the end of the process during the epoch after `epochs`."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_train_batch_begin(self, batch, logs=None):
        if len(self.model.finished) == self.epochs and batch == 1:
            raise KeyboardInterrupt

    def on_train_begin(self, logs=None):
        self.model.finished = []

    def on_epoch_end(self, epoch, logs=None):
        self.model.finished.append(epoch)


class TwoOptimizers(keras.Model):
    """Trains its classifier by SGD, and a factor on the logits by Adam."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier
        self.factor = self.add_weight(shape=(3,), initializer="ones", name="factor")
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.factor_optimizer = keras.optimizers.Adam(0.01)
        self.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
        self.optimizer.build(classifier.trainable_variables)
        self.factor_optimizer.build([self.factor])
        self(tf.zeros((1, 6, 6, 1)))

    @property
    def optimizers(self):
        return [self.optimizer, self.factor_optimizer]

    def call(self, images, training=None):
        return self.classifier(images, training=training) * self.factor

    def train_step(self, data):
        images, labels = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.loss(labels, self(images, training=True))
        weights = self.classifier.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.factor_optimizer.apply(tape.gradient(loss, [self.factor]), [self.factor])
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return {"loss": loss * replicas, "first_factor": self.factor[0]}


def state(model) -> list[np.ndarray]:
    optimizers = getattr(model, "optimizers", [model.optimizer])
    return values([*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)])


def logs_of(history: keras.callbacks.History) -> dict[str, list[float]]:
    """Logs by epoch, without the seconds, which differ between equal trainings."""
    return {name: values for name, values in history.history.items() if name != SECONDS}


def test_equals_keras_fit(make_classifier, compile_classifier, epochs_dataset):
    ours = compile_classifier(make_classifier(dropout=0.5, normalise=True))
    theirs = compile_classifier(make_classifier(dropout=0.5, normalise=True))
    history = run(ours, epochs_dataset)
    expected = theirs.fit(epochs_dataset(0), epochs=3, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    assert history.history.keys() - {SECONDS} == expected.history.keys() == {"loss", "accuracy"}
    for name, series in logs_of(history).items():
        np.testing.assert_allclose(series, expected.history[name], rtol=1e-6)
    assert history.epoch == expected.epoch
    # But for the dropout's seeds, which are drawn from one global counter.
    assert_close(values(ours.weights), values(theirs.weights), 1e-6)


def test_two_replicas_take_the_steps_of_one(make_classifier, compile_classifier, epochs_dataset, two_replicas):
    single = compile_classifier(make_classifier())
    history = run(single, epochs_dataset)
    with two_replicas.scope():
        double = compile_classifier(make_classifier())
    replicated = run(double, epochs_dataset, strategy=two_replicas)
    assert_close(values(single.weights), values(double.weights), 1e-5)
    for name, series in logs_of(history).items():
        np.testing.assert_allclose(series, replicated.history[name], rtol=1e-4)


def test_two_replicas_distil_like_one(make_classifier, epochs_dataset, two_replicas):
    def make():
        return distiller(
            make_classifier(), make_classifier(filters=6, seed=2), sgd(0.05, l2=0.01), objective=Classification(3)
        )

    single = make()
    before = values(single.student.weights)
    history = run(single, epochs_dataset)
    with two_replicas.scope():
        double = make()
    replicated = run(double, epochs_dataset, strategy=two_replicas)
    assert np.abs(before[0] - np.array(single.student.weights[0])).max() > 1e-3
    assert_close(values(single.student.weights), values(double.student.weights), 1e-5)
    np.testing.assert_allclose(history.history["loss"], replicated.history["loss"], rtol=1e-4)


def test_two_replicas_with_two_optimizers(make_classifier, epochs_dataset, two_replicas):
    single = TwoOptimizers(make_classifier())
    history = run(single, epochs_dataset)
    with two_replicas.scope():
        double = TwoOptimizers(make_classifier())
    replicated = run(double, epochs_dataset, strategy=two_replicas)
    assert_close(values(single.weights), values(double.weights), 1e-5)
    # The loss of the last step is the mean over both halves of the batch.
    np.testing.assert_allclose(history.history["loss"], replicated.history["loss"], rtol=1e-4)


@pytest.mark.parametrize("learner", [pytest.param("classifier", marks=pytest.mark.slow), "two_optimizers", "distiller"])
def test_resumed_run_equals_uninterrupted_one(make_classifier, compile_classifier, epochs_dataset, tmp_path, learner):
    def make():
        classifier = make_classifier(dropout=0.5, normalise=True)
        if learner == "distiller":
            return distiller(
                classifier,
                make_classifier(normalise=True, filters=6, seed=2),
                sgd(0.05, l2=0.01),
                objective=Classification(3),
            )
        return TwoOptimizers(classifier) if learner == "two_optimizers" else compile_classifier(classifier)

    whole = make()
    expected = run(whole, epochs_dataset, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        run(make(), epochs_dataset, epochs=4, saving=Saving(tmp_path), callbacks=[KillAfter(2)])
    resumed = make()
    for variable in resumed.optimizer.variables[2:]:
        variable.assign(tf.ones_like(variable))
    epochs_seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs_seen.append(epoch))
    history = run(resumed, epochs_dataset, epochs=4, saving=Saving(tmp_path), callbacks=[watch])
    assert epochs_seen == [2, 3]
    assert logs_of(history) == logs_of(expected)
    assert len(history.history[SECONDS]) == 4  # those of the killed process count as well
    assert history.epoch == expected.epoch == [0, 1, 2, 3]
    assert_same(state(resumed), state(whole))


class AtStep(keras.callbacks.Callback):
    """Does something before a step of an epoch."""

    def __init__(self, epoch, step, act):
        super().__init__()
        self.at, self.act, self.epoch = (epoch, step), act, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.act()


def kill():
    raise MemoryError


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def learner(request, make_classifier, compile_classifier, epochs_dataset):
    """A function that makes a learner of this kind, the trained one, and its history."""

    def make():
        classifier = make_classifier(dropout=0.5, normalise=True)
        return TwoOptimizers(classifier) if request.param == "two_optimizers" else compile_classifier(classifier)

    whole = make()
    return make, whole, run(whole, epochs_dataset)


@pytest.mark.parametrize(
    "learner", ["classifier", pytest.param("two_optimizers", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize(
    ("act", "ends_with", "step", "expected"),
    [
        (kill, MemoryError, 3, (1, 3)),
        pytest.param(kill, MemoryError, 0, (1, 0), marks=pytest.mark.slow),
        (terminate, Terminated, 1, (1, 2)),
        (interrupt, KeyboardInterrupt, 1, (1, 2)),
        (terminate, Terminated, STEPS - 1, (2, 0)),
    ],
)
def test_a_run_that_ended_inside_an_epoch_goes_on_there(
    learner, epochs_dataset, tmp_path, act, ends_with, step, expected
):
    make, whole, wanted = learner

    # SIGTERM saves even if it isn't time to.
    saving = Saving(tmp_path, minutes=1e-9 if act is kill else 10.0)
    with pytest.raises(ends_with), listening():
        run(make(), epochs_dataset, saving=saving, callbacks=[AtStep(1, step, act)])
    saved = saved_progress(tmp_path)
    assert (saved.epochs, saved.steps) == expected
    resumed = make()
    history = run(resumed, epochs_dataset, saving=saving)
    assert_same(state(resumed), state(whole))
    assert logs_of(history) == logs_of(wanted)
    assert len(history.history[SECONDS]) == 3


@pytest.mark.parametrize("learner", ["classifier"], indirect=True)
@pytest.mark.parametrize("act", [terminate, kill])
def test_a_long_validation_can_be_ended_at_once_and_is_done_again(learner, epochs_dataset, tmp_path, act, monkeypatch):
    """It may change the model: that of an unfinished one must not stay."""
    monkeypatch.setattr("tas_tf.training.loop._LONG_VALIDATION", -1.0)
    make, *_ = learner
    ended = []

    def validate(model, act=None):
        def run_validation():
            model.layers[2].moving_mean.assign_add([1.0] * 4)
            if act is not None and int(model.optimizer.iterations) == 2 * STEPS:
                act()
                ended.append(False)
            return {"mean": float(model.layers[2].moving_mean[0])}

        return run_validation

    whole, first, resumed = make(), make(), make()
    wanted = run(whole, epochs_dataset, validation=validate(whole))
    with pytest.raises((Terminated, MemoryError)), listening():
        run(first, epochs_dataset, validation=validate(first, act), saving=Saving(tmp_path))
    assert not ended
    saved = saved_progress(tmp_path)
    assert (saved.epochs, saved.steps) == (1, STEPS)
    history = run(resumed, epochs_dataset, validation=validate(resumed), saving=Saving(tmp_path))
    assert_same(state(resumed), state(whole))
    assert logs_of(history) == logs_of(wanted)


@pytest.mark.parametrize(("seconds", "saved"), [(-1.0, 6), (1e9, 4)])
def test_the_state_before_a_short_validation_is_not_saved(
    make_classifier, compile_classifier, epochs_dataset, tmp_path, monkeypatch, seconds, saved
):
    """But for the first one, of which nobody knows how long it takes."""
    monkeypatch.setattr("tas_tf.training.loop._LONG_VALIDATION", seconds)
    states = []
    saving = Saving(tmp_path, on_saved=lambda: states.append(saved_progress(tmp_path)))
    run(compile_classifier(make_classifier()), epochs_dataset, validation=dict, saving=saving)
    assert [(one.epochs, one.steps) for one in states][:3] == [(0, STEPS), (1, 0), (1, STEPS) if saved == 6 else (2, 0)]
    assert len(states) == saved


def test_a_short_validation_ends_before_a_request_ends_the_process(
    make_classifier, compile_classifier, epochs_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr("tas_tf.training.loop._LONG_VALIDATION", 1e9)
    ended = []

    def validate():
        if ended:
            terminate()
        ended.append(True)
        return {}

    with pytest.raises(Terminated), listening():
        run(compile_classifier(make_classifier()), epochs_dataset, validation=validate, saving=Saving(tmp_path))
    assert len(ended) == 2
    assert saved_progress(tmp_path).epochs == 2


def test_an_epoch_of_another_length_does_not_go_on(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    saving = Saving(tmp_path, minutes=1e-9)
    with pytest.raises(MemoryError):
        run(compile_classifier(make_classifier()), epochs_dataset, saving=saving, callbacks=[AtStep(1, 3, kill)])
    model = compile_classifier(make_classifier())
    with pytest.raises(UserError, match=r"An epoch had 4 steps .* and has 3 now: the data have changed"):
        fit(model, epochs_dataset, strategy=make_strategy(), epochs=3, steps_per_epoch=3, verbose=0, saving=saving)


def test_a_second_request_ends_at_once(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    def twice():
        terminate()
        terminate()

    with pytest.raises(Terminated), listening():
        run(
            compile_classifier(make_classifier()),
            epochs_dataset,
            saving=Saving(tmp_path),
            callbacks=[AtStep(0, 1, twice)],
        )
    assert saved_progress(tmp_path) is None


def test_a_diverged_state_is_not_saved_inside_an_epoch(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    model = compile_classifier(make_classifier())

    def ruin():
        model.weights[0].assign(tf.fill(model.weights[0].shape, np.inf))

    with pytest.raises(UserError, match="is not finite"):
        run(model, epochs_dataset, saving=Saving(tmp_path, 1e-9), callbacks=[AtStep(1, 1, ruin)])
    saved = saved_progress(tmp_path)
    assert (saved.epochs, saved.steps) == (1, 1)


def test_finished_run_is_restored_and_not_trained(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    trained = compile_classifier(make_classifier())
    expected = run(trained, epochs_dataset, saving=Saving(tmp_path))
    again = compile_classifier(make_classifier(seed=5))
    history = run(again, epochs_dataset, saving=Saving(tmp_path))
    assert history.history == expected.history
    assert_same(values(again.variables), values(trained.variables))
    with pytest.raises(UserError, match="`epochs` is 2, but 3 epochs are done"):
        run(again, epochs_dataset, epochs=2, saving=Saving(tmp_path))


def test_one_device_resumes_what_two_replicas_began(
    make_classifier, compile_classifier, epochs_dataset, two_replicas, tmp_path
):
    with two_replicas.scope():
        first = compile_classifier(make_classifier())
    run(first, epochs_dataset, epochs=2, strategy=two_replicas, saving=Saving(tmp_path))
    second = compile_classifier(make_classifier(seed=5))
    run(second, epochs_dataset, epochs=3, saving=Saving(tmp_path))
    whole = compile_classifier(make_classifier())
    run(whole, epochs_dataset, epochs=3)
    assert_close(values(second.weights), values(whole.weights), 1e-5)


def test_stops_when_a_callback_asks(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    class StopAfterSecond(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model = compile_classifier(make_classifier())
    history = run(model, epochs_dataset, epochs=5, saving=Saving(tmp_path), callbacks=[StopAfterSecond()])
    assert history.epoch == [0, 1]
    # Stopped on purpose, hence finished.
    assert run(model, epochs_dataset, epochs=5, saving=Saving(tmp_path)).epoch == [0, 1]


def test_validation_is_logged(make_classifier, compile_classifier, epochs_dataset):
    results = iter([{"accuracy": 0.25}, {"accuracy": np.float32(0.5)}])
    history = run(compile_classifier(make_classifier()), epochs_dataset, epochs=2, validation=lambda: next(results))
    assert history.history["val_accuracy"] == [0.25, 0.5]


def test_nan_stops_and_keeps_the_checkpoint(compile_classifier, examples, epochs_dataset, tmp_path):
    _, labels = examples

    def poisoned(first_epoch, first_step=0):
        bad = tf.data.Dataset.from_tensors((tf.fill((8, 6, 6, 1), np.nan), tf.constant(labels[:8])))
        good = epochs_dataset(first_epoch)
        return good.take((1 - first_epoch) * STEPS + 2).concatenate(bad).concatenate(good)

    def linear(seed=1):
        # Without a ReLU, which would hide the NaN until the next step.
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        return compile_classifier(keras.Sequential(layers))

    good = linear()
    run(good, epochs_dataset, epochs=1)
    model = linear()
    with pytest.raises(UserError, match=r"loss at step 3 of epoch 2 .* Lower the learning rate \(now 0.05\)"):
        run(model, poisoned, saving=Saving(tmp_path))
    restored = linear(seed=5)
    run(restored, epochs_dataset, epochs=1, saving=Saving(tmp_path))
    assert_same(values(restored.variables), values(good.variables))


def test_weights_gone_in_the_last_step_are_not_saved(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    model = compile_classifier(make_classifier())

    class Ruin(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == STEPS - 1:
                kernel = self.model.weights[0]
                kernel.assign(tf.fill(kernel.shape, np.inf))

    with pytest.raises(UserError, match="kernel in epoch 1 is not finite"):
        run(model, epochs_dataset, saving=Saving(tmp_path), callbacks=[Ruin()])
    assert not (tmp_path / "progress.json").exists()


def test_an_epoch_takes_from_its_begin_to_its_end(make_classifier, compile_classifier, epochs_dataset, monkeypatch):
    now = [100.0]

    def pass_time(epoch, logs):
        now[0] += 10.0 * (epoch + 1)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    slow = keras.callbacks.LambdaCallback(on_epoch_begin=pass_time, on_epoch_end=pass_time)
    history = run(compile_classifier(make_classifier()), epochs_dataset, epochs=2, callbacks=[slow])
    assert history.history[SECONDS] == [20.0, 40.0]


def test_unready_models_are_refused(make_classifier, compile_classifier, epochs_dataset, two_replicas):
    with pytest.raises(ValueError, match="not compiled"):
        run(make_classifier(), epochs_dataset)
    with pytest.raises(ValueError, match=r"strategy\.scope"):
        run(compile_classifier(make_classifier()), epochs_dataset, strategy=two_replicas)
    lazy = TwoOptimizers(make_classifier())
    lazy.factor_optimizer = keras.optimizers.Adam(0.01)
    with pytest.raises(ValueError, match="Not built: adam"):
        run(lazy, epochs_dataset)


def test_wrong_datasets_are_refused(make_classifier, compile_classifier, epochs_dataset, two_replicas):
    with pytest.raises(ValueError, match="ended at step 4 of epoch 1"):
        run(compile_classifier(make_classifier()), lambda epoch, step=0: epochs_dataset(epoch).take(3))
    with two_replicas.scope():
        model = compile_classifier(make_classifier())
    with pytest.raises(UserError, match="drop_remainder"):
        run(model, lambda epoch, step=0: epochs_dataset(epoch).unbatch().batch(8), strategy=two_replicas)


def test_batch_callbacks_get_the_logs_of_the_last_step(make_classifier, compile_classifier, epochs_dataset):
    seen = {}
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.update({batch: logs}))
    history = run(compile_classifier(make_classifier()), epochs_dataset, epochs=1, callbacks=[watch])
    assert list(seen) == list(range(STEPS))
    assert seen[STEPS - 1]["loss"] == pytest.approx(history.history["loss"][0], rel=1e-5)
