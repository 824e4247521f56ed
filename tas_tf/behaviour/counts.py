"""Adds up, batch by batch, what a network confuses and how sure it is, and where two networks agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

#: Bins of confidence, of equal width from 0 to 1.
BINS = 15


@dataclass(frozen=True)
class Bin:
    """Images whose most probable class has a probability within one range.

    Attributes:
        images: Number of images.
        confidence: Mean probability of the most probable class, 0 to 1; `None` without images.
        accuracy: Share of the images that are recognised, 0 to 1; `None` without images.
    """

    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How well probabilities tell the share of right answers.

    Attributes:
        bins: Images by confidence, in ranges of equal width from 0 to 1.

    Reference:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """

    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: mean distance of accuracy from confidence, weighted by images.

        >>> Calibration((Bin(3, 0.5, 1.0), Bin(1, 0.9, 0.8), Bin(0, None, None))).error
        0.4
        """
        filled = [one for one in self.bins if one.images]
        total = sum(one.images for one in filled)
        return sum(one.images * abs(one.accuracy - one.confidence) for one in filled) / total if total else 0.0


@dataclass(frozen=True)
class Answers:
    """Answers of one network.

    Attributes:
        confusion: Number of images by true class and predicted class; pairs that don't occur are left out.
        calibration: How well its probabilities fit.
    """

    confusion: dict[tuple[int, int], int]
    calibration: Calibration

    def matrix(self, num_classes: int) -> np.ndarray:
        """All pairs, int64 `[true class, predicted class]`.

        >>> Answers({(0, 1): 3}, Calibration(())).matrix(2).tolist()
        [[0, 3], [0, 0]]
        """
        found = np.zeros([num_classes, num_classes], np.int64)
        for pair, number in self.confusion.items():
            found[pair] = number
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data: `confusion` as triples of true class, predicted class and number."""
        return {
            "confusion": [[*pair, number] for pair, number in sorted(self.confusion.items())],
            "calibration_error": self.calibration.error,
            "calibration": [vars(one) for one in self.calibration.bins],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Reads what `to_json` returns."""
        confusion = {(true, predicted): number for true, predicted, number in content["confusion"]}
        return cls(confusion, Calibration(tuple(Bin(**one) for one in content["calibration"])))


@dataclass(frozen=True)
class Agreement:
    """On how many images which of two networks are right.

    Attributes:
        both: Both are right.
        teacher: Only the teacher is right.
        student: Only the student is right.
        neither: Both are wrong.
        same: Both choose the same class, right or wrong.
    """

    both: int
    teacher: int
    student: int
    neither: int
    same: int


class AnswerCounts:
    """Counts the answers of one network; its size grows with the pairs of classes that occur, not with the images."""

    def __init__(self) -> None:
        self._confusion: Counter[tuple[int, int]] = Counter()
        self._images, self._hits = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS, np.float64)

    def add(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Adds a batch.

        Args:
            labels: True classes, `[batch]`.
            probabilities: Probabilities of the classes, `[batch, classes]`.

        Returns:
            Predicted classes, `[batch]`.
        """
        predicted, confidence = probabilities.argmax(-1), probabilities.max(-1).astype(np.float64)
        self._confusion.update(zip(labels.tolist(), predicted.tolist(), strict=True))
        place = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
        self._images += np.bincount(place, minlength=BINS)
        self._hits += np.bincount(place[predicted == labels], minlength=BINS)
        self._confidence += np.bincount(place, weights=confidence, minlength=BINS)
        return predicted

    def result(self) -> Answers:
        """All batches together."""
        bins = [
            Bin(images, confidence / images, hits / images) if images else Bin(0, None, None)
            for images, confidence, hits in self._listed()
        ]
        return Answers(dict(self._confusion), Calibration(tuple(bins)))

    def _listed(self) -> Sequence[tuple[int, float, int]]:
        return list(zip(self._images.tolist(), self._confidence.tolist(), self._hits.tolist(), strict=True))


class AgreementCounts:
    """Counts where two networks agree."""

    def __init__(self) -> None:
        self._counts = np.zeros(5, np.int64)

    def add(self, labels: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> None:
        """Adds true classes and those that the networks predict, `[batch]` each."""
        by_teacher, by_student = teacher == labels, student == labels
        cases = (by_teacher & by_student, by_teacher & ~by_student, ~by_teacher & by_student, ~by_teacher & ~by_student)
        self._counts += [int(each.sum()) for each in (*cases, teacher == student)]

    def result(self) -> Agreement:
        """All batches together."""
        return Agreement(*self._counts.tolist())
