"""One call from a model and a user's data to a student."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.compression.compress import compress
from tas_tf.compression.defaults import search_settings, training_settings
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.form import Form
from tas_tf.data.streamed import open_data
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.tflite import export_tflite, file_size
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.importance.order import channel_order
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.settings import TrainSettings
from tests.digits import CLASSES, tiny_search
from tests.networks import count_macs

# A few steps of training don't teach a student much.
pytestmark = pytest.mark.filterwarnings("ignore:The student is near chance level")

BRIEF = TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.01)
#: Leaves weights where they start.
STILL = replace(BRIEF, lr=1e-7, l2=0.0)


def dataset(images, labels) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).batch(50)


class Counted(keras.callbacks.Callback):
    """Remembers which models were trained for how many epochs."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(type(self.model).__name__)


UNDECIDED = pytest.mark.filterwarnings("ignore:The .* distributions have not converged:UserWarning")


@UNDECIDED
def test_a_student_within_the_budget(model, arrays):
    weights = [np.array(weight) for weight in model.get_weights()]
    counted = Counted()
    result = compress(
        model,
        dataset(*arrays[0]),
        dataset(*arrays[1]),
        "macs:0.6",
        search=tiny_search(from_teacher=True),
        training=BRIEF,
        inherit="none",
        callbacks=[counted],
        verbose=0,
    )
    macs = count_macs(result.student)
    assert macs == result.student_metrics["macs"] <= 0.6 * count_macs(model)
    assert {type(layer).__module__.split(".")[0] for layer in result.student.layers} == {"keras"}
    images, labels = arrays[1]
    for network, metrics in ((model, result.teacher_metrics), (result.student, result.student_metrics)):
        hits = np.asarray(network(images)).argmax(1) == labels
        assert metrics["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
        assert metrics["params"] == network.count_params()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert counted.epochs == ["Searcher", "Distiller"]
    assert result.metadata.labels == tuple(map(str, range(10)))
    assert result.metadata.input_range == pytest.approx((arrays[0][0].min(), arrays[0][0].max()))
    assert f"macs: {count_macs(model):,} to {macs:,}" in str(result)
    assert f"accuracy: {result.teacher_metrics['accuracy']:.4f} to " in str(result)


@pytest.mark.slow
@UNDECIDED
def test_bytes_texts_and_weights_of_the_model(model, arrays, tmp_path):
    """A budget in bytes needs no more to be given; classes that are called by texts keep their names."""
    (images, labels), (others, answers) = arrays
    names = np.array([f"digit {number}" for number in range(10)])
    result = compress(
        model,
        (images, names[labels]),
        (others, names[answers]),
        "bytes:0.7",
        search=tiny_search(from_teacher=True),
        training=STILL,
        inherit="teacher",
        verbose=0,
    )
    written = export_tflite(result.student, tmp_path / "student.tflite", metadata=result.metadata).stat().st_size
    whole = result.search.metrics["budget_bytes"] / 0.7
    assert file_size(model) < whole
    assert written <= 0.7 * whole
    kernel = result.student.get_layer("stem").kernel.numpy()
    order = channel_order("l1", model, SearchSpace.from_model(model))["stem"][: kernel.shape[-1]]
    np.testing.assert_allclose(kernel, model.get_layer("stem").kernel.numpy()[..., order], atol=1e-5)
    assert result.metadata.labels == tuple(names)
    hits = np.asarray(model(others)).argmax(1) == answers
    assert result.teacher_metrics["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)


@pytest.mark.slow
@UNDECIDED
def test_weights_of_the_supernet_by_default(model, arrays):
    with pytest.warns(UserWarning, match="The student is near chance level") as told:
        result = compress(model, *arrays, search=tiny_search(), training=STILL, verbose=0)
    assert {str(one.message) for one in told} >= set(result.search.warnings) != set()
    expected = keras.models.clone_model(result.student)
    space = SearchSpace.from_graph(Graph.from_model(model))
    inherit_from_supernet(expected, result.search.supernet, space, result.shape)
    for name in ("stem", "block1_conv1", "classifier"):
        kernels = (network.get_layer(name).kernel.numpy() for network in (result.student, expected))
        np.testing.assert_allclose(*kernels, atol=1e-5)


class OwnTraining(keras.Model):
    """A functional model behind a subclass."""

    def train_step(self, data):
        raise AssertionError("`compress` trains by itself")


@pytest.mark.slow
@UNDECIDED
def test_a_subclass_for_images_of_any_size(model, arrays, tmp_path):
    """Costs are those at the size of the data; the student takes images of any size again."""
    images = keras.Input((None, None, 1))
    copy = keras.models.clone_model(model, input_tensors=images)
    copy.set_weights(model.get_weights())
    result = compress(
        OwnTraining(images, copy.output, name="mine"),
        *arrays,
        "macs:0.6",
        search=tiny_search(),
        training=STILL,
        verbose=0,
    )
    assert result.teacher_metrics["macs"] == count_macs(model)
    assert result.student.input_shape == (None, None, None, 1)
    assert np.asarray(result.student(np.zeros((2, 16, 12, 1), "float32"))).shape == (2, 10)
    assert result.metadata.input_shape == (8, 8, 1)
    assert export_tflite(result.student, tmp_path / "student.tflite", metadata=result.metadata).exists()


def test_a_part_of_another_size_has_a_batch_that_fits(arrays):
    images, labels = arrays[0]
    data = open_data((images[:100], labels[:100]), form=Form.of_images(8, 8, 1), objective=CLASSES)
    settings = search_settings({"split_share": 0.9}, data)
    data.searching(settings.batch_size, settings.split_share)
    assert settings.batch_size < 20


def test_defaults_are_moderate_and_fit_few_images(arrays):
    images, labels = arrays[0]
    options = {"form": Form.of_images(8, 8, 1), "objective": CLASSES}
    for replicas in (1, 3):
        few = open_data((images[:50], labels[:50]), **options)
        search, training = search_settings(None, few, replicas), training_settings(None, few, replicas)
        assert (search.epochs, search.from_teacher) == (20, True)
        assert (training.epochs, training.warmup_epochs) == (20, 0)
        assert search.batch_size % replicas == training.batch_size % replicas == 0
        assert few.searching(search.batch_size)[1] >= 1
        assert few.training(training.batch_size)[1] == 1
    many = open_data(arrays[0], **options)
    assert (search_settings(None, many).batch_size, training_settings(None, many).batch_size) == (64, 64)
    assert training_settings(None, many).lr == pytest.approx(0.1 / 4)


def test_a_mapping_changes_single_defaults(arrays):
    data = open_data(arrays[0], form=Form.of_images(8, 8, 1), objective=CLASSES)
    default = search_settings(None, data)
    assert search_settings({"epochs": 3, "seed": 4}, data) == replace(default, epochs=3, seed=4)
    assert training_settings({"epochs": 3}, data) == replace(training_settings(None, data), epochs=3)
    larger = training_settings({"batch_size": 128}, data)
    assert (larger.batch_size, larger.lr) == (128, pytest.approx(0.1 / 2))
    assert training_settings(BRIEF, data) is BRIEF


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "macs:0.001"}, "below what"),
        ({"budget": 0.5}, "budget"),
        ({"axes": "height"}, "axes"),
        ({"inherit": "middle"}, "inherit"),
        ({"augment": Augmentation(random_resized_crop=True)}, "uint8"),
        ({"search": tiny_search(batch_size=150)}, "batch_size"),
        ({"training": replace(BRIEF, batch_size=500)}, "batch_size"),
        ({"training": {"epoch": 3}}, "`training` must have settings among .*'epoch'"),
        ({"training": {"epochs": 0.5}}, "epochs"),
        ({"search": BRIEF}, "`search` must be a `tas_tf.SearchSettings`"),
    ],
    ids=str,
)
def test_bad_arguments(model, arrays, change, message):
    with pytest.raises(UserError, match=message):
        compress(model, *arrays, **{"search": tiny_search(), "training": BRIEF, "verbose": 0, **change})


def test_what_can_not_become_files_is_refused_before_data_is_read(model, monkeypatch):
    def refuse(network):
        assert network is model
        raise ExportError("no files")

    monkeypatch.setattr("tas_tf.compression.compress.check_deployable", refuse)
    with pytest.raises(UserError, match="no files"):
        compress(model, None, None)


def test_images_that_are_scaled_in_two_ways_are_refused(model, arrays):
    (images, labels), validation = arrays
    with pytest.raises(UserError, match="must be prepared like `validation`"):
        compress(model, (images * -255.0, labels), validation, verbose=0)


def test_a_model_at_chance_is_refused(model, arrays):
    with pytest.raises(UserError, match="near chance"):
        compress(keras.models.clone_model(model), *arrays, verbose=0)


@pytest.mark.slow
def test_a_budget_in_time(model, arrays, clock):
    space = SearchSpace.from_graph(Graph.from_model(model))
    options = {
        "race": {"proposals": 2},
        "training": BRIEF,
        "latency": {"file_format": "int8", "threads": 2},
        "verbose": 0,
    }
    result = compress(model, *arrays, "latency:0.7", **options)
    cost = clock.cost(space)
    assert cost(result.shape) <= 0.7 * cost.full
    assert result.shape in clock.timed
    assert result.student_metrics["latency_share"] <= 0.7
    assert result.student_metrics["latency_ms"] == pytest.approx(1.01 * cost(result.shape) / 10**12, rel=0.01)
    with pytest.raises(UserError, match="`latency` must have settings among threads, file_format, table"):
        compress(model, *arrays, "latency:0.7", latency={"speed": 1})
    with pytest.raises(UserError, match="below what the network can reach"):
        compress(model, *arrays, "latency:1us")
