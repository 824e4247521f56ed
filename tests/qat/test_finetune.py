"""Fine-tuning in Keras 2 against NumPy and against the training in Keras 3, interrupted, diverging, on two devices."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.files import read_json
from tas_tf.graph.graph import Graph
from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.finetune import fine_tune, score
from tas_tf.qat.quantise import quantise
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.qat.twin import make_twin
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.checkpoint import Saving, saved_progress
from tas_tf.training.distill import distiller
from tas_tf.training.network import logits_of, train_network
from tas_tf.training.optimizers import sgd
from tas_tf.training.settings import TrainSettings
from tests.networks import randomize
from tests.parts import slow_except

BATCH = 50


@pytest.fixture(scope="module")
def task() -> Task:
    """Two steps an epoch."""
    return Task.load("digits", train_limit=2 * BATCH)


def plain_network(seed: int = 0) -> keras.Model:
    """Without batch normalisation, whose statistics are each replica's own."""
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(images)
    return randomize(keras.Model(images, layers.Dense(10, name="scores")(layers.Flatten()(x))), seed)


def small_network(seed: int = 0) -> keras.Model:
    """With batch normalisation."""
    images = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(momentum=0.9, name="norm")(layers.Conv2D(6, 3, strides=2, name="conv")(images))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return randomize(keras.Model(images, layers.Dense(10, name="scores")(x)), seed)


def space_of(model: keras.Model) -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(model))


def settings(**changes) -> FineTuneSettings:
    return FineTuneSettings(**{"epochs": 1, "batch_size": BATCH, "lr": 0.05, "l2": 0.01, **changes})


def tune(network: tf_keras.Model, task: Task, **options) -> tf_keras.Model:
    options = {"strategy": tf.distribute.get_strategy(), "verbose": 0, **options}
    changes = {name: options.pop(name) for name in list(options) if hasattr(FineTuneSettings, name)}
    fine_tune(network, task, settings(**changes), **options)
    return network


class Losses(tf_keras.callbacks.Callback):
    """The loss of each epoch, by its number."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def on_epoch_end(self, epoch, logs=None):
        self.found[epoch] = logs["loss"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize(
    ("alpha", "temperature"), slow_except([(0.9, 4.0), (0.0, 4.0), (1.0, 1.5), (None, 4.0)], [(0.9, 4.0), (None, 4.0)])
)
def test_the_loss_of_the_first_step_is_numpys(task, alpha, temperature):
    model, teacher = plain_network(), plain_network(1)
    images, labels = next(task.plain(task.indices).as_numpy_iterator())
    ours, theirs = (network(images).numpy() for network in (model, teacher))
    expected = -log_softmax(ours)[np.arange(len(labels)), labels].mean()
    if alpha is not None:
        log_p, log_q = log_softmax(theirs / temperature), log_softmax(ours / temperature)
        divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
        expected = (1 - alpha) * expected + alpha * temperature**2 * divergence
    losses = Losses()
    given = {"alpha": alpha or 0.0, "temperature": temperature, "teacher": None if alpha is None else teacher}
    tune(make_twin(model), task, batch_size=2 * BATCH, callbacks=[losses], **given)
    assert losses.found[0] == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_that_of_the_distillation_in_keras_3(task):
    """In training mode, with batch normalisation."""
    model, teacher = small_network(), small_network(1)
    losses = Losses()
    tune(make_twin(model), task, batch_size=2 * BATCH, teacher=teacher, callbacks=[losses])
    images, labels = next(task.plain(task.indices).as_numpy_iterator())
    logs = distiller(model, teacher, sgd(0.0), objective=task.objective).train_on_batch(
        images, labels, return_dict=True
    )
    assert losses.found[0] == pytest.approx(float(logs["loss"]), rel=1e-4)


@pytest.mark.parametrize("network", [plain_network, small_network], ids=["plain", "normalised"])
def test_training_moves_weights_as_it_does_in_keras_3(task, network):
    """Rate, momentum, penalty, order of the images and all: the same training in the other package."""
    model, teacher = network(), network(1)
    space = space_of(model)
    result = train_network(
        space,
        Shape.full(space),
        task,
        TrainSettings(epochs=2, warmup_epochs=0, batch_size=BATCH, lr=0.05, l2=0.01),
        strategy=tf.distribute.get_strategy(),
        teacher=logits_of(teacher, space),
        start=model,
        verbose=0,
    )
    before = teacher.get_weights()
    twin = tune(make_twin(model), task, epochs=2, teacher=logits_of(teacher, space))
    for variable in result.model.trainable_weights:
        layer, name = variable.path.split("/")[-2:]
        found = next(one for one in twin.get_layer(layer).weights if one.name == f"{layer}/{name}:0")
        np.testing.assert_allclose(found, variable, rtol=1e-3, atol=1e-5, err_msg=variable.path)
        start = next(one for one in model.weights if one.path == variable.path)
        assert np.abs(found.numpy() - start.numpy()).max() > 1e-3
    for one, other in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("quantised", [False, True], ids=["float", "quantised"])
def test_two_replicas_take_the_same_steps(task, two_replicas, quantised):
    model, teacher = plain_network(), plain_network(1)
    found = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        network = make_twin(model)
        if quantised:
            network = quantise(network)
            calibrate(network, task.shuffled(task.indices, BATCH, 2).map(lambda images, _: images))
        with strategy.scope():
            taught_by = logits_of(teacher, space_of(teacher))
        tune(network, task, teacher=taught_by, strategy=strategy)
        found.append(network.trainable_weights)
    for one, other in zip(*found, strict=True):
        # Each replica rounds by the ranges of its own half of the batch.
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-4 if quantised else 1e-5)


class Stop(tf_keras.callbacks.Callback):
    """Interrupts in the middle of an epoch."""

    def __init__(self, epoch: int):
        super().__init__()
        self._stop, self._epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._epoch == self._stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def calibrated(task) -> tuple[keras.Model, list[np.ndarray]]:
    """A network, and weights of its fake-quantised form."""
    model = small_network()
    network = quantise(make_twin(model))
    calibrate(network, task.shuffled(task.indices, BATCH, 2).map(lambda images, _: images))
    return model, network.get_weights()


@pytest.fixture
def fresh(calibrated):
    """Makes the fake-quantised network as it is before any fine-tuning."""

    def make() -> tf_keras.Model:
        model, weights = calibrated
        network = quantise(make_twin(model))
        network.set_weights(weights)
        return network

    return make


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [10.0, 1e-9])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(calibrated, fresh, tmp_path, minutes):
    """After the first epoch or, saved more often, after a step of the second."""
    task = Task.load("digits", train_limit=2 * BATCH, pad_crop=1)  # images differ from epoch to epoch
    options = {"epochs": 3, "teacher": small_network(1)}
    whole = Losses()
    expected = tune(fresh(), task, callbacks=[whole], **options).get_weights()
    with pytest.raises(KeyboardInterrupt):
        tune(fresh(), task, callbacks=[Stop(1)], saving=Saving(tmp_path, minutes), **options)
    saved = saved_progress(tmp_path)
    assert (saved.epochs, saved.steps) == (1, 0 if minutes == 10 else 1)
    late = Losses()
    network = tune(fresh(), task, callbacks=[late], saving=Saving(tmp_path), **options)
    assert list(late.found) == [1, 2]
    assert late.found[2] == pytest.approx(whole.found[2], rel=1e-6)
    assert late.found[1] == pytest.approx(whole.found[1], rel=1e-6)
    for one, other in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    # Once more: there is nothing left to do. All comes back, ranges too, though the toolkit numbers its layers anew.
    never = Losses()
    again = tune(quantise(make_twin(calibrated[0])), task, callbacks=[never], saving=Saving(tmp_path), **options)
    assert never.found == {}
    for one, other in zip(again.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def dropping_network(seed: int = 0) -> keras.Model:
    """With dropout of single activations, channels and whole images."""
    images = keras.Input((8, 8, 1))
    x = layers.SpatialDropout2D(0.3)(layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(images))
    x = layers.Dropout(0.2, noise_shape=(None, 1, 1, 1))(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return randomize(keras.Model(images, layers.Dense(10, name="scores")(x)), seed)


@pytest.mark.parametrize(("quantised", "accumulate"), slow_except([(False, 1), (False, 2), (True, 1)], [(False, 1)]))
def test_dropout_goes_on_as_if_it_had_not_been_interrupted(task, tmp_path, quantised, accumulate):
    def fresh() -> tf_keras.Model:
        network = make_twin(dropping_network())
        if quantised:
            network = quantise(network)
            calibrate(network, task.shuffled(task.indices, BATCH, 2).map(lambda images, _: images))
        return network

    options = {"epochs": 2, "accumulate": accumulate}
    whole, late = Losses(), Losses()
    expected = tune(fresh(), task, callbacks=[whole], **options).get_weights()
    with pytest.raises(KeyboardInterrupt):
        tune(fresh(), task, callbacks=[Stop(1)], saving=Saving(tmp_path, 1e-9), **options)
    assert (saved_progress(tmp_path).epochs, saved_progress(tmp_path).steps) == (1, 1)
    found = tune(fresh(), task, callbacks=[late], saving=Saving(tmp_path), **options).get_weights()
    assert late.found[1] == whole.found[1]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    moved = zip(expected, fresh().get_weights(), strict=True)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in moved)  # back in the network that was given


def saved_values(folder: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(folder / read_json(folder / "progress.json")["checkpoint"]))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return {name: value for name, value in values.items() if not isinstance(value, bytes)}


def test_divergence_is_told_and_the_earlier_checkpoint_stays(task, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(make_twin(plain_network()), task, epochs=3, saving=Saving(tmp_path), callbacks=[Stop(1)])
    before = saved_values(tmp_path)
    assert saved_progress(tmp_path).epochs == 1
    with pytest.raises(UserError, match=r"diverged in epoch 2: .* lower learning rate, `lr`"):
        tune(make_twin(plain_network()), task, epochs=3, lr=1e30, saving=Saving(tmp_path))
    after = saved_values(tmp_path)
    assert after.keys() == before.keys()
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_run_that_diverges_at_once_saves_nothing(fresh, task, tmp_path):
    for rate in (1e20, 1e30):  # weights alone, the loss as well
        with pytest.raises(UserError, match="diverged in epoch 1: "):
            tune(fresh(), task, epochs=2, lr=rate, saving=Saving(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_score_is_the_accuracy_on_the_test_images(task):
    model = plain_network()
    images, labels = task.test_arrays()
    expected = (model(images).numpy().argmax(-1) == labels).mean()
    assert score(make_twin(model), task) == pytest.approx(expected, abs=1e-6)


def test_batches_that_do_not_fit_are_refused(task, two_replicas):
    with pytest.raises(UserError, match="`batch_size` doesn't fit"):
        tune(make_twin(plain_network()), task, batch_size=2 * BATCH + 1)
    with pytest.raises(UserError, match="divisible by the number of replicas"):
        tune(make_twin(plain_network()), task, batch_size=BATCH - 1, strategy=two_replicas)


@pytest.mark.parametrize("changes", [{"alpha": 1.1}, {"temperature": 0.0}])
def test_settings_that_make_no_sense(changes):
    with pytest.raises(UserError, match=r"`(alpha|temperature)`"):
        settings(**changes)
