"""Losses, distances from a teacher and scores of each kind of output, against NumPy, Keras and scikit-learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.scoring import Scorer, score_arrays, tally_with_loss, to_logits

N = 40
OBJECTIVES = {
    "classes": Classification(4),
    "classes of pixels": Classification(4, (3, 5)),
    "binary": Binary(1),
    "binary of pixels": Binary(1, (3, 5)),
    "multilabel": Multilabel(3),
    "multilabel of pixels": Multilabel(3, (3, 5)),
    "regression": Regression(2),
    "regression of pixels": Regression(2, (3, 5)),
    "squashed": Regression(2, loss="mae", squashed=True),
    "huber": Regression(2, loss="huber"),
}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def logits_of(objective, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, *objective.positions, objective.num_outputs)).astype("float32")


def labels_of(objective, seed: int = 9) -> np.ndarray:
    rng, shape = np.random.default_rng(seed), (N, *objective.label_shape)
    if objective.task == "classification":
        return rng.integers(0, objective.num_outputs, shape)
    if objective.task == "regression":
        return rng.normal(size=shape).astype("float32")
    return rng.integers(0, 2, shape).astype("float32")


def scores_of(objective, labels, logits) -> dict[str, float]:
    return score_arrays(objective, labels, logits.astype(np.float64))


def keras_losses(objective, labels, logits) -> np.ndarray:
    """Keras's own loss of each image."""
    losses = {
        "classification": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none"),
        "binary": keras.losses.BinaryCrossentropy(from_logits=True, reduction="none"),
        "multilabel": keras.losses.BinaryCrossentropy(from_logits=True, reduction="none"),
        "mse": keras.losses.MeanSquaredError(reduction="none"),
        "mae": keras.losses.MeanAbsoluteError(reduction="none"),
        "huber": keras.losses.Huber(reduction="none"),
    }
    outputs = tf.sigmoid(logits) if getattr(objective, "squashed", False) else logits
    found = losses[getattr(objective, "loss", objective.task)](labels, outputs).numpy()
    return found.reshape(N, -1).mean(1)


@each_objective
def test_losses_are_those_of_keras(objective):
    labels, logits = labels_of(objective), logits_of(objective)
    wanted = keras_losses(objective, labels, logits)
    np.testing.assert_allclose(objective.losses(labels, tf.constant(logits)), wanted, rtol=1e-5, atol=1e-6)
    assert float(objective.keras_loss()(labels, logits)) == pytest.approx(wanted.mean(), rel=1e-5)


@each_objective
def test_a_student_like_its_teacher_has_no_distance_and_no_gradient(objective):
    logits, others = tf.constant(logits_of(objective)), tf.constant(logits_of(objective, 1))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        distance = objective.divergences(tf.stop_gradient(logits), logits, 4.0)
    np.testing.assert_allclose(distance, np.zeros(N), atol=1e-5)
    np.testing.assert_allclose(tape.gradient(distance, logits), np.zeros(logits.shape), atol=1e-5)
    far = objective.divergences(others, logits, 4.0).numpy()
    assert far.min() >= -1e-6
    assert far.mean() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_of_decisions_is_the_divergence_of_two_outcomes(temperature):
    objective = OBJECTIVES["multilabel"]
    ours, theirs = logits_of(objective).astype(np.float64), logits_of(objective, 1).astype(np.float64)
    p, q = (1 / (1 + np.exp(-each / temperature)) for each in (theirs, ours))
    wanted = temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(1)
    np.testing.assert_allclose(objective.divergences(theirs, tf.constant(ours), temperature), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["binary", "multilabel", "squashed"])
def test_extreme_logits_have_finite_losses_and_gradients(name):
    objective = OBJECTIVES[name]
    logits = tf.constant(np.full((N, objective.num_outputs), 200.0, np.float32))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = objective.losses(np.zeros((N, objective.num_outputs), np.float32), logits)
        losses += objective.divergences(-logits, logits, 1.0)
    assert np.isfinite(losses).all()
    assert np.isfinite(tape.gradient(losses, logits)).all()


@each_objective
def test_scores_do_not_depend_on_batches(objective):
    labels, logits = labels_of(objective), logits_of(objective).astype(np.float64)
    scorer = Scorer(objective)
    for start in range(0, N, 7):
        part = tf.constant(labels[start : start + 7]), tf.constant(logits[start : start + 7])
        scorer.add(tally_with_loss(objective, *part), *part)
    assert scorer.result() == pytest.approx(scores_of(objective, labels, logits), rel=1e-9)
    assert objective.metric in scorer.result()
    assert scorer.result()["loss"] == pytest.approx(keras_losses(objective, labels, logits).mean(), rel=1e-5)


def test_scores_of_classes():
    objective, labels, logits = (
        OBJECTIVES["classes"],
        labels_of(OBJECTIVES["classes"]),
        logits_of(OBJECTIVES["classes"]),
    )
    found, predicted = scores_of(objective, labels, logits), logits.argmax(-1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))


def test_scores_of_classes_of_pixels():
    objective = OBJECTIVES["classes of pixels"]
    labels, logits = labels_of(objective), logits_of(objective)
    labels[labels == 3] = 0  # a class that never occurs but is predicted
    found = scores_of(objective, labels, logits)
    flat, predicted = labels.reshape(-1), logits.argmax(-1).reshape(-1)
    wanted = metrics.jaccard_score(flat, predicted, average="macro", labels=range(4), zero_division=0.0)
    assert found["mean_iou"] == pytest.approx(wanted)
    assert found["accuracy"] == pytest.approx((flat == predicted).mean())


def test_scores_of_a_decision():
    objective = OBJECTIVES["binary"]
    labels, logits = labels_of(objective), logits_of(objective)
    found, said = scores_of(objective, labels, logits), logits[:, 0] > 0
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels[:, 0], said))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels[:, 0], said))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels[:, 0], logits[:, 0]))
    assert "roc_auc" not in scores_of(objective, np.ones_like(labels), logits)  # nothing to tell apart


def test_scores_of_decisions_of_pixels():
    labels, logits = labels_of(OBJECTIVES["binary of pixels"]), logits_of(OBJECTIVES["binary of pixels"])
    flat, said = labels.reshape(-1), logits.reshape(-1) > 0
    found = scores_of(OBJECTIVES["binary of pixels"], labels, logits)
    assert found["mean_iou"] == pytest.approx(metrics.jaccard_score(flat, said, average="macro"))
    labels, logits = labels_of(OBJECTIVES["multilabel of pixels"]), logits_of(OBJECTIVES["multilabel of pixels"])
    flat, said = labels.reshape(-1, 3), logits.reshape(-1, 3) > 0
    found = scores_of(OBJECTIVES["multilabel of pixels"], labels, logits)
    assert found["mean_iou"] == pytest.approx(metrics.jaccard_score(flat, said, average="macro"))


def test_scores_of_several_labels():
    objective = OBJECTIVES["multilabel"]
    labels, logits = labels_of(objective), logits_of(objective)
    labels[:, 1] = 0  # has no precision
    found = scores_of(objective, labels, logits)
    wanted = np.mean([metrics.average_precision_score(labels[:, one], logits[:, one]) for one in (0, 2)])
    assert found["mean_average_precision"] == pytest.approx(wanted)
    assert found["accuracy"] == pytest.approx((labels == (logits > 0)).mean())


@pytest.mark.parametrize("name", ["regression", "regression of pixels", "squashed"])
def test_scores_of_values(name):
    objective = OBJECTIVES[name]
    labels, logits = labels_of(objective), logits_of(objective)
    values = 1 / (1 + np.exp(-logits)) if objective.squashed else logits
    flat, found = labels.reshape(-1, 2), values.reshape(-1, 2)
    scores = scores_of(objective, labels, logits)
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(flat, found), rel=1e-6)
    assert scores["rmse"] ** 2 == pytest.approx(metrics.mean_squared_error(flat, found), rel=1e-6)
    explained = 1 - metrics.mean_squared_error(flat, found) / flat.var(axis=0).mean()
    assert scores["r2"] == pytest.approx(explained, rel=1e-6)


@each_objective
def test_the_best_constant_is_near_and_a_perfect_network_is_not(objective):
    labels = labels_of(objective)
    constant = objective.constant_score(objective.summary(labels))
    assert objective.is_near(constant, constant)
    assert not objective.is_near(objective.perfect, constant)
    assert objective.goodness(objective.perfect) > objective.goodness(constant)


def test_constants_score_what_they_score():
    """No constant output does better: the score of a constant network, computed as that of any other."""
    for name in ("classes", "classes of pixels", "binary", "multilabel", "regression"):
        objective = OBJECTIVES[name]
        labels = labels_of(objective)
        constant = objective.constant_score(objective.summary(labels))
        if objective.task == "regression":
            logits = np.tile(np.median(labels, axis=0), (N, 1))
        elif objective.task == "classification":
            most = np.bincount(labels.reshape(-1)).argmax()
            logits = np.tile(np.eye(4)[most], (*labels.shape, 1))
        else:
            logits = np.tile(np.where(labels.mean(0) > 0.5, 1.0, -1.0), (N, 1))
        assert scores_of(objective, labels, logits)[objective.metric] == pytest.approx(constant), name


@each_objective
def test_agreement(objective):
    logits, others = logits_of(objective), logits_of(objective, 1)
    assert objective.agreement(logits, logits) == 1.0
    assert 0 <= objective.agreement(others, logits) < 1.0


def test_the_progress_of_a_training_is_a_mean():
    for objective in OBJECTIVES.values():
        labels, logits = labels_of(objective), logits_of(objective)
        metric = objective.keras_metric()
        metric.update_state(labels, tf.constant(logits))
        wanted = scores_of(objective, labels, logits)[objective.progress_name]
        assert metric.name == objective.progress_name
        assert float(metric.result()) == pytest.approx(wanted, rel=1e-5)


def test_sigmoids_are_undone():
    logits = np.array([[-3.0, 0.0, 8.0]])
    np.testing.assert_allclose(to_logits(1 / (1 + np.exp(-logits)), "sigmoid"), logits, rtol=1e-6)
    assert np.isfinite(to_logits(np.array([[0.0, 1.0]], np.float32), "sigmoid")).all()
    assert to_logits(logits, "softmax") is logits


def test_an_unknown_loss():
    with pytest.raises(UserError, match="`loss` of a regression must be one of mse, mae, huber"):
        Regression(1, loss="mape")


def test_losses_of_values_are_scaled_by_their_unit():
    """With labels, outputs and teacher in another unit, the scaled losses are those of the standardised values."""
    rng = np.random.default_rng(0)
    labels, logits, wanted = (rng.normal(size=(50, 2)).astype("float32") for _ in range(3))
    labels = (labels - labels.mean(0)) / labels.std(0)
    standard = Regression(2)
    assert standard.scaled(standard.summary(labels)).loss_scale == pytest.approx(1)
    large = standard.scaled(standard.summary(1000 * labels))
    found = large.training_losses(1000 * labels, 1000 * logits, 1000 * wanted, alpha=0.3)
    np.testing.assert_allclose(found, standard.training_losses(labels, logits, wanted, alpha=0.3), rtol=1e-5)
    assert Regression(2, loss="mae").scaled(1000 * labels).loss_scale == pytest.approx(1e-3)
    # Scores and reported losses keep their unit, and a loss of one's own its size.
    reported = large.losses(1000 * labels, 1000 * logits)
    np.testing.assert_allclose(reported, 1e6 * standard.losses(labels, logits), rtol=1e-5)
    own = Regression(2, own_loss=lambda labels, outputs: outputs[:, 0])
    assert own.scaled(1000 * labels) is own
    assert Classification(3).scaled(np.array([0, 1000, 2])) == Classification(3)
