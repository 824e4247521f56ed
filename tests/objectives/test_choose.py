"""What a network is for: from its end, from its loss, or as its user says."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.special import log_softmax

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import is_standard, loss_of, name_of_loss
from tas_tf.training.distill import distillation_loss
from tas_tf.zoo.loading import losses_in_file


def network(end, *more, pixels: bool = False) -> keras.Model:
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same")(images)
    x = x if pixels else layers.GlobalAveragePooling2D()(x)
    for layer in (end, *more):
        x = layer(x)
    return keras.Model(images, x, name="net")


def chosen(model: keras.Model, **options):
    return choose_objective(Graph.from_model(model), **options)


@pytest.mark.parametrize(
    ("end", "task", "outputs"),
    [
        ([layers.Dense(3, "softmax")], "classification", 3),
        ([layers.Dense(3)], "classification", 3),
        ([layers.Dense(3), layers.Activation("log_softmax")], "classification", 3),
        ([layers.Dense(3), layers.Rescaling(0.5), layers.Softmax()], "classification", 3),
        ([layers.Dense(1, "sigmoid")], "binary", 1),
        ([layers.Dense(1), layers.Activation("sigmoid")], "binary", 1),
        ([layers.Dense(4, "sigmoid")], "multilabel", 4),
    ],
)
def test_by_the_end(end, task, outputs):
    objective = chosen(network(*end))
    assert (objective.task, objective.num_outputs, objective.positions) == (task, outputs, ())


def test_an_operation_at_the_end_is_split_off():
    images = keras.Input((8, 8, 1))
    logits = layers.Dense(1)(layers.Flatten()(layers.Conv2D(4, 3)(images)))
    graph = Graph.from_model(keras.Model(images, keras.ops.sigmoid(logits)))
    assert (graph.end.head.class_name, graph.activation_of(graph.end)) == ("Sigmoid", "sigmoid")
    assert graph[graph.output].class_name == "Dense"


@pytest.mark.parametrize(
    ("layer", "task"),
    [
        (layers.Conv2D(3, 1, activation="softmax"), "classification"),
        (layers.Conv2D(1, 1, activation="sigmoid"), "binary"),
    ],
)
def test_per_pixel(layer, task):
    objective = chosen(network(layer, pixels=True))
    assert (objective.task, objective.positions, str(objective)) == (task, (8, 8), f"{task} per pixel")
    assert objective.metric == "mean_iou"


@pytest.mark.parametrize(
    ("end", "loss", "task", "kind"),
    [
        (layers.Dense(1), "mse", "regression", "mse"),
        (layers.Dense(3), keras.losses.MeanAbsoluteError(), "regression", "mae"),
        (layers.Dense(3), keras.losses.huber, "regression", "huber"),
        (layers.Dense(1), keras.losses.BinaryCrossentropy(from_logits=True), "binary", None),
        (layers.Dense(3), "binary_crossentropy", "multilabel", None),
        (layers.Dense(2, "sigmoid"), "mse", "regression", "mse"),
        (layers.Dense(2, "tanh"), ["mae"], "regression", "mae"),
        (layers.Dense(3), "sparse_categorical_crossentropy", "classification", None),
    ],
)
def test_by_the_loss_also_from_a_file(end, loss, task, kind, tmp_path):
    model = network(type(end).from_config(end.get_config()))
    model.compile("sgd", loss)
    model.save(tmp_path / "net.keras")
    for found in (loss_of(model), losses_in_file(tmp_path / "net.keras")["loss"]):
        objective = chosen(model, loss=found)
        assert (objective.task, getattr(objective, "loss", None)) == (task, kind)
    assert chosen(model, task=task).task == task


def test_a_model_that_was_not_compiled_has_no_loss(tmp_path):
    model = network(layers.Dense(1, "sigmoid"))
    model.save(tmp_path / "net.keras")
    assert loss_of(model) is None
    assert losses_in_file(tmp_path / "net.keras")["loss"] is None
    assert name_of_loss(lambda labels, outputs: 0.0) == ""


def test_values_between_0_and_1():
    model = network(layers.Dense(2, "sigmoid"))
    assert chosen(model, task="regression").squashed
    assert not chosen(network(layers.Dense(2, "tanh")), task="regression").squashed


def losses_of(objective, labels, logits) -> np.ndarray:
    return objective.losses(tf.constant(labels), tf.constant(logits, tf.float32)).numpy()


def test_a_loss_with_options_is_used_as_it_was_compiled():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)  # of probabilities
    assert not is_standard(smooth, "classification")
    objective = chosen(network(layers.Dense(3, "softmax")), loss=smooth)
    wanted = np.eye(3)[labels] * 0.8 + 0.2 / 3
    np.testing.assert_allclose(
        losses_of(objective, labels, logits), -(wanted * log_softmax(logits, -1)).sum(-1), rtol=1e-4
    )


def test_a_loss_for_another_task_is_used_and_not_the_tasks_own():
    labels, logits = np.array([[1.0], [0.0]], np.float32), np.array([[0.0], [0.0]])
    objective = chosen(network(layers.Dense(1, "sigmoid")), task="binary", loss="mse")
    np.testing.assert_allclose(losses_of(objective, labels, logits), [0.25, 0.25])


def test_a_function_with_the_name_of_one_of_keras_is_the_users():
    def huber(labels, outputs):
        return 7.0 + 0.0 * outputs

    objective = chosen(network(layers.Dense(2)), task="regression", loss=huber)
    labels, logits = np.zeros((3, 2), np.float32), np.zeros((3, 2))
    np.testing.assert_allclose(losses_of(objective, labels, logits), [7.0] * 3)


def test_a_softmax_with_a_loss_of_each_output():
    objective = chosen(network(layers.Dense(2, "softmax")), loss="binary_crossentropy")
    assert objective.task == "classification"
    logits = np.array([[0.0, 0.0]])
    np.testing.assert_allclose(losses_of(objective, np.array([1]), logits), [np.log(2)], rtol=1e-5)
    objective = chosen(network(layers.Dense(2, "softmax")), loss="mse")
    assert objective.task == "classification"
    np.testing.assert_allclose(losses_of(objective, np.array([1]), logits), [0.25], rtol=1e-5)
    with pytest.raises(UserError, match=r"\(for its loss, categorical_crossentropy\) needs .* Give `task`"):
        chosen(network(layers.Dense(3, "sigmoid")), loss="categorical_crossentropy")


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ("my_loss", None),
        (
            {"class_name": "BinaryCrossentropy", "config": {"reduction": "auto", "from_logits": True}},
            "binary_crossentropy",
        ),
        ([{"module": "keras.losses", "class_name": "BinaryCrossentropy", "config": {}}], "binary_crossentropy"),
        ({"out": {"module": "keras.losses", "class_name": "MeanSquaredError", "config": {}}}, "mean_squared_error"),
        ("mse", "mean_squared_error"),
    ],
)
def test_losses_as_files_have_them(tmp_path, saved, found):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"compile_config": {"loss": saved}}))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
    assert name_of_loss(losses_in_file(tmp_path / "net.keras")["loss"]) == (found or "")


@pytest.mark.parametrize("averages", [False, True])
def test_a_function_of_the_users_own(averages):
    def loss(labels, outputs):
        errors = tf.abs(labels - outputs) ** 3
        return tf.reduce_mean(errors) if averages else errors

    model = network(layers.Dense(2))
    with pytest.raises(UserError, match="`task`: net ends in 2 outputs"):  # logits, or values?
        chosen(model, loss=loss)
    objective = chosen(model, loss=loss, task="regression")
    labels, logits = np.random.default_rng(0).normal(size=(2, 6, 2)).astype("float32")
    wanted = (np.abs(labels - logits) ** 3).mean(1)
    np.testing.assert_allclose(losses_of(objective, labels, logits).mean(), wanted.mean(), rtol=1e-5)
    assert float(objective.keras_loss()(labels, logits)) == pytest.approx(wanted.mean(), rel=1e-5)


def test_a_loss_gets_outputs_and_not_logits():
    seen = []

    def loss(labels, outputs):
        seen.append(outputs.numpy())
        return tf.square(labels - outputs)

    objective = chosen(network(layers.Dense(1, "sigmoid")), loss=loss)
    assert objective.task == "binary"
    losses_of(objective, np.ones((2, 1), np.float32), [[0.0], [100.0]])
    np.testing.assert_allclose(seen[0], [[0.5], [1.0]])


def test_weights_of_classes():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 3, 6), tf.constant(rng.normal(size=(6, 3)), tf.float32)
    plain, heavy = (chosen(network(layers.Dense(3)), class_weight=each) for each in (None, {1: 5.0}))
    weights = np.where(labels == 1, 5.0, 1.0)
    wanted = weights * losses_of(plain, labels, logits)
    np.testing.assert_allclose(heavy.weighted(labels, heavy.losses(labels, logits)), wanted, rtol=1e-6)
    assert float(heavy.keras_loss()(labels, logits)) == pytest.approx(wanted.mean(), rel=1e-6)
    taught = distillation_loss(labels, logits, -logits, alpha=0.3, temperature=2.0, objective=heavy)
    untaught = distillation_loss(labels, logits, -logits, alpha=0.3, temperature=2.0, objective=plain)
    np.testing.assert_allclose(taught, weights * untaught, rtol=1e-6)
    decision = chosen(network(layers.Dense(1, "sigmoid")), class_weight={0: 2})
    assert decision.class_weight == (2.0, 1.0)
    for wrong in ({3: 1.0}, {0: -1.0}, [1, 2, 3]):
        with pytest.raises(UserError, match="`class_weight` must map class numbers from 0 to 2"):
            chosen(network(layers.Dense(3)), class_weight=wrong)
    with pytest.raises(UserError, match="`class_weight` needs images with one class each"):
        chosen(network(layers.Dense(3, "sigmoid")), class_weight={0: 2.0})


@pytest.mark.parametrize(
    ("end", "options", "message"),
    [
        (layers.Dense(1), {}, r"`task`: net ends in 1 output with the activation `linear`"),
        (layers.Dense(3, "tanh"), {}, r"`task`: net ends in 3 outputs with the activation `tanh`"),
        (layers.Dense(3), {"task": "ranking"}, "`task` must be one of classification, binary, multilabel, regression"),
        (layers.Dense(1, "sigmoid"), {"task": "classification"}, "`task`=classification needs .* at least 2 outputs"),
        (layers.Dense(3, "softmax"), {"task": "multilabel"}, "`task`=multilabel needs"),
        (layers.Dense(3), {"task": "binary"}, "`task`=binary needs a network with one output"),
        (layers.Dense(3, "softmax"), {"task": "regression"}, "`task`=regression needs .* aren't a softmax"),
    ],
)
def test_what_does_not_fit(end, options, message):
    with pytest.raises(UserError, match=message):
        chosen(network(type(end).from_config(end.get_config())), **options)
