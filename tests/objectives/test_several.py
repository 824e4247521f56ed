"""Several outputs and weights of images, against what Keras and scikit-learn compute for each output alone."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.metrics import balanced_accuracy_score, r2_score

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.losses import loss_of, loss_weights_of
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.scoring import score_arrays
from tas_tf.objectives.several import Part, Several

RNG = np.random.default_rng(0)
COUNT = 40
LOGITS = {
    "kind": RNG.normal(size=(COUNT, 3)),
    "mask": RNG.normal(size=(COUNT, 2, 2, 2)),
    "size": RNG.normal(size=(COUNT, 1)),
}
LABELS = {
    "kind": RNG.integers(3, size=COUNT),
    "mask": RNG.integers(2, size=(COUNT, 2, 2, 2)).astype(float),
    "size": RNG.normal(size=(COUNT, 1)),
}
WEIGHTS = {"kind": 1.0, "mask": 0.5, "size": 2.0}
PARTS = {"kind": Classification(3), "mask": Multilabel(2, (2, 2)), "size": Regression(1)}
SEVERAL = Several.of([Part(name, objective, WEIGHTS[name]) for name, objective in PARTS.items()])


def packed(parts, weights=None) -> tf.Tensor:
    """Numbers of all parts side by side, each followed by the weights of images if there are any."""
    rows = []
    for name in PARTS:
        rows.append(np.reshape(parts[name], (COUNT, -1)))
        rows += [] if weights is None else [weights[name][:, None]]
    return tf.constant(np.concatenate(rows, axis=1), tf.float32)


def losses_of_keras() -> dict[str, np.ndarray]:
    keras_losses = {
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None),
        "mask": keras.losses.BinaryCrossentropy(from_logits=True, reduction=None),
        "size": keras.losses.MeanSquaredError(reduction=None),
    }
    found = {name: np.asarray(loss(LABELS[name], LOGITS[name])) for name, loss in keras_losses.items()}
    return {name: one.reshape(COUNT, -1).mean(1) for name, one in found.items()}


def test_losses_are_added_up_with_the_weights_of_outputs():
    expected = sum(WEIGHTS[name] * loss for name, loss in losses_of_keras().items())
    np.testing.assert_allclose(SEVERAL.losses(packed(LABELS), packed(LOGITS)), expected, rtol=1e-5)


def test_images_have_weights_in_training_for_each_output():
    weights = {name: RNG.uniform(size=COUNT) for name in PARTS}
    weighed = Several.of(
        [
            Part(name, type(one)(one.num_outputs, one.positions, weighs=True), WEIGHTS[name])
            for name, one in PARTS.items()
        ]
    )
    labels, logits = packed(LABELS, weights), packed(LOGITS)
    expected = sum(WEIGHTS[name] * weights[name] * loss for name, loss in losses_of_keras().items())
    np.testing.assert_allclose(weighed.training_losses(labels, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(weighed.keras_loss()(labels, logits), expected.mean(), rtol=1e-5)
    assert score_arrays(weighed, labels.numpy(), logits.numpy()) == pytest.approx(
        score_arrays(SEVERAL, packed(LABELS).numpy(), logits.numpy())
    )


@pytest.mark.parametrize("objective", [Classification(3), Binary(1), Regression(2)], ids=str)
def test_weights_of_a_single_output_are_those_of_keras(objective):
    """A model compiled with the same loss has the same loss with `sample_weight`."""
    logits = RNG.normal(size=(COUNT, objective.num_outputs)).astype("float32")
    labels = RNG.integers(2, size=(COUNT, *objective.label_shape)).astype("float32")
    weights = RNG.uniform(size=COUNT).astype("float32")
    loss = {
        "classification": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "regression": "mse",
    }[objective.task]
    model = keras.Sequential([keras.Input((objective.num_outputs,)), layers.Identity()])
    model.compile("sgd", loss)
    weighed = type(objective)(objective.num_outputs, weighs=True)
    rows = np.concatenate([labels.reshape(COUNT, -1), weights[:, None]], axis=1)
    expected = model.test_on_batch(logits, labels, sample_weight=weights)
    np.testing.assert_allclose(weighed.keras_loss()(rows, logits), expected, rtol=1e-5)


def test_distillation_adds_each_outputs_distance():
    wanted = {name: RNG.normal(size=np.shape(one)) for name, one in LOGITS.items()}
    expected = sum(
        WEIGHTS[name] * np.asarray(one.divergences(tf.constant(wanted[name]), tf.constant(LOGITS[name]), 3.0))
        for name, one in PARTS.items()
    )
    found = SEVERAL.divergences(packed(wanted), packed(LOGITS), 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    both = SEVERAL.training_losses(packed(LABELS), packed(LOGITS), packed(wanted), alpha=0.3, temperature=3.0)
    plain = sum(WEIGHTS[name] * loss for name, loss in losses_of_keras().items())
    np.testing.assert_allclose(both, 0.7 * plain + 0.3 * expected, rtol=1e-5)


def test_scores_are_each_outputs_own_and_their_mean():
    scores = score_arrays(SEVERAL, packed(LABELS).numpy(), packed(LOGITS).numpy())
    chosen = LOGITS["kind"].argmax(1)
    r2 = r2_score(LABELS["size"], LOGITS["size"])
    said, there = LOGITS["mask"] > 0, LABELS["mask"] > 0
    iou = np.mean([(said & there)[..., one].sum() / (said | there)[..., one].sum() for one in range(2)])
    assert scores["kind_accuracy"] == pytest.approx(np.mean(chosen == LABELS["kind"]))
    assert scores["kind_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(LABELS["kind"], chosen))
    assert scores["size_r2"] == pytest.approx(r2, abs=1e-5)
    assert scores["mask_mean_iou"] == pytest.approx(iou)
    assert scores["mean_score"] == pytest.approx(np.mean([scores["kind_accuracy"], iou, max(0, r2)]), abs=1e-5)


def test_a_mean_is_told_with_what_it_consists_of():
    scores = {"mean_score": 0.5, "kind_accuracy": 0.4, "mask_mean_iou": 0.25, "size_mae": 1.5}
    assert (
        SEVERAL.told_apart(scores)
        == "0.500 (kind: accuracy 0.4000, mask: mean iou 0.2500, size: mean absolute error 1.5)"
    )
    assert Classification(3).told_apart({"accuracy": 0.4}) == "0.400"


def test_the_best_constant_answers_each_output_by_itself():
    labels = packed(LABELS).numpy()
    found = SEVERAL.constant_score(SEVERAL.summary(labels))
    share = np.bincount(LABELS["kind"]).max() / COUNT
    always = LABELS["mask"].mean((0, 1, 2)).mean()
    assert found == pytest.approx((share + always + 0) / 3)


def test_a_ranking_score_sees_all_images_at_once():
    both = Several.of([Part("a", Multilabel(2)), Part("b", Classification(2))])
    labels = np.concatenate([RNG.integers(2, size=(COUNT, 2)), RNG.integers(2, size=(COUNT, 1))], 1).astype("float32")
    logits = RNG.normal(size=(COUNT, 4)).astype("float32")
    alone = score_arrays(Multilabel(2), labels[:, :2], logits[:, :2])
    assert score_arrays(both, labels, logits)["a_mean_average_precision"] == pytest.approx(
        alone["mean_average_precision"]
    )


def two_heads(**compiled) -> keras.Model:
    image = keras.Input((4, 4, 1))
    x = layers.Flatten()(image)
    model = keras.Model(image, {"kind": layers.Dense(3, "softmax")(x), "size": layers.Dense(1)(x)})
    if compiled:
        model.compile("sgd", **compiled)
    return model


def test_the_compiled_losses_and_weights_tell():
    model = two_heads(loss={"kind": "categorical_crossentropy", "size": "mae"}, loss_weights={"kind": 1, "size": 0.2})
    found = choose_objective(Graph.from_model(model), loss=loss_of(model), loss_weights=loss_weights_of(model))
    assert [(part.name, part.objective.task, part.weight) for part in found.parts] == [
        ("kind", "classification", 1),
        ("size", "regression", 0.2),
    ]
    assert found.parts[1].objective.loss == "mae"
    listed = choose_objective(Graph.from_model(two_heads()), loss=[None, "huber"], loss_weights=[3.0, 1.0])
    assert (listed.parts[0].weight, listed.parts[1].objective.loss) == (3.0, "huber")


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "nothing says": ({}, "output `size` of .* ends in 1 output"),
        "unknown name": ({"task": {"weight": "regression"}}, "`task` must have the names of the outputs, kind, size"),
        "unknown task": ({"task": {"size": "depth"}}, "`task` must be one of"),
        "too few": ({"task": ["classification"]}, "`task` must have a value for each output"),
        "unsuitable": ({"task": {"kind": "binary", "size": "regression"}}, "output `kind` of .* ends in 3 outputs"),
        "class weights": ({"task": {"size": "regression"}, "class_weight": {0: 1.0}}, "`class_weight` needs a network"),
    }.values(),
    ids=str,
)
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        choose_objective(Graph.from_model(two_heads()), **arguments)


def test_values_are_scaled_by_themselves():
    """With 100 times larger values and outputs, the losses are those of before, and classes weigh what they did."""
    unit = 1 / LABELS["size"].std()
    labels, logits = ({**each, "size": unit * each["size"]} for each in (LABELS, LOGITS))
    large, outputs = ({**each, "size": 100 * each["size"]} for each in (labels, logits))
    scaled = SEVERAL.scaled(SEVERAL.summary(packed(large)))
    found = scaled.training_losses(packed(large), packed(outputs))
    np.testing.assert_allclose(found, SEVERAL.training_losses(packed(labels), packed(logits)), rtol=1e-4)
    # A weight that makes up for the unit is left alone.
    small = Several.of([replace(part, weight=0.9e-4) if part.name == "size" else part for part in SEVERAL.parts])
    assert small.scaled(small.summary(packed(large))).parts == small.parts
    assert SEVERAL.scaled(SEVERAL.summary(packed({**LABELS, "size": 0.1 * LABELS["size"]}))) == SEVERAL
