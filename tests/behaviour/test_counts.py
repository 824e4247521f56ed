"""Confusion, agreement and calibration, compared with scikit-learn and with loops."""

import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from tas_tf.behaviour.counts import BINS, AgreementCounts, AnswerCounts, Answers


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """True classes and probabilities of 500 images and 4 classes; sharp ones, so that all bins are used."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 4)) * rng.uniform(0, 6, (500, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return rng.integers(0, 4, 500), probabilities


def counted(labels: np.ndarray, probabilities: np.ndarray, batch: int) -> Answers:
    counts = AnswerCounts()
    for start in range(0, len(labels), batch):
        counts.add(labels[start : start + batch], probabilities[start : start + batch])
    return counts.result()


def expected_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The definition, image by image."""
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = [
            (row.max(), row.argmax() == label)
            for label, row in zip(labels, probabilities, strict=True)
            if low <= row.max() < high or (number == BINS - 1 and row.max() == 1.0)
        ]
        if inside:
            confidence, right = np.mean([one[0] for one in inside]), np.mean([one[1] for one in inside])
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


@pytest.mark.parametrize("batch", [500, 64, 1])
def test_confusion_and_calibration_whatever_the_batches(answers, batch):
    labels, probabilities = answers
    found = counted(labels, probabilities, batch)
    predicted = probabilities.argmax(-1)
    assert np.array_equal(found.matrix(4), confusion_matrix(labels, predicted, labels=range(4)))
    assert found.calibration.error == pytest.approx(expected_error(labels, probabilities))
    filled = [one for one in found.calibration.bins if one.images]
    accuracy, confidence = calibration_curve(predicted == labels, probabilities.max(-1), n_bins=BINS)
    assert [one.accuracy for one in filled] == pytest.approx(accuracy)
    assert [one.confidence for one in filled] == pytest.approx(confidence)
    assert sum(one.images for one in filled) == 500
    assert Answers.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_certainty_and_bins_without_images():
    found = counted(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), 2)
    assert [one.images for one in found.calibration.bins] == [0] * (BINS - 1) + [2]
    assert (found.calibration.bins[0].accuracy, found.calibration.bins[-1].accuracy) == (None, 0.5)
    assert found.calibration.error == 0.5
    assert AnswerCounts().result().calibration.error == 0.0


def test_agreement():
    counts = AgreementCounts()
    counts.add(np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1]), np.array([0, 2, 0, 1]))
    counts.add(np.array([1, 1]), np.array([0, 1]), np.array([2, 1]))
    found = counts.result()
    assert (found.both, found.teacher, found.student, found.neither, found.same) == (2, 1, 1, 2, 3)
