"""What a page shows of the answers of teacher and student: agreement, confusions, calibration, example images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.behaviour.counts import Answers
from tas_tf.report.formatting import format_share

# With more classes, matrices can't be read; with more pairs, nor can a table.
_MOST_CLASSES, _MOST_PAIRS = 20, 40


@dataclass(frozen=True)
class Part:
    """A part of the test images.

    Attributes:
        key: Which part: `both`, `teacher`, `student` or `neither`.
        label: Who recognises these images.
        images: Number of images.
        share: Share of all images, 0 to 1.
    """

    key: str
    label: str
    images: int
    share: float


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix.

    Attributes:
        images: Number of images.
        share: Share of the images of the true class, 0 to 1.
        right: Whether the predicted class is the true one.
    """

    images: int
    share: float
    right: bool


@dataclass(frozen=True)
class Confusion:
    """A class that is taken for another one.

    Attributes:
        label: The true class.
        predicted: The other class.
        teacher: Number of images that the teacher confuses so.
        student: Number of images that the student confuses so.
    """

    label: str
    predicted: str
    teacher: int
    student: int

    @property
    def change(self) -> str:
        """Student minus teacher, with its sign."""
        return f"{self.student - self.teacher:+d}"


@dataclass(frozen=True)
class Example:
    """An image that the teacher recognises and the student doesn't.

    Attributes:
        image: The image as a data URI; empty if it can't be shown.
        label: The true class.
        predicted: The class that the student chooses.
        teacher: Probability that the teacher gives the true class, as text.
        student: Probability that the student gives the other class, as text.
        index: Place of the image in the test set.
    """

    image: str
    label: str
    predicted: str
    teacher: str
    student: str
    index: int

    @property
    def alt(self) -> str:
        """Text alternative of the image."""
        return f"Test image {self.index} of class {self.label}, which the student takes for {self.predicted}."


@dataclass(frozen=True)
class Sureness:
    """How sure a model is.

    Attributes:
        name: Name of the model.
        error: Its expected calibration error, as text.
        confidence: Mean probability of the class that it chooses, as text.
        accuracy: Share of right answers, as text.
    """

    name: str
    error: str
    confidence: str
    accuracy: str


def parts_of(behaviour: Behaviour) -> list[Part]:
    """Who recognises which part of the test images."""
    agreement = behaviour.agreement
    labels = {"both": "both", "teacher": "only the teacher", "student": "only the student", "neither": "neither"}
    counts = {key: getattr(agreement, key) for key in labels}
    return [Part(key, labels[key], number, number / behaviour.images) for key, number in counts.items()]


def matrices(behaviour: Behaviour) -> dict[str, list[tuple[str, list[Cell]]]]:
    """Confusion matrices by model: name of the true class and the cells of its row. Empty with many classes."""
    if len(behaviour.classes) > _MOST_CLASSES:
        return {}
    return {"teacher": _matrix(behaviour, behaviour.teacher), "student": _matrix(behaviour, behaviour.student)}


def _matrix(behaviour: Behaviour, answers: Answers) -> list[tuple[str, list[Cell]]]:
    matrix = answers.matrix(len(behaviour.classes))
    rows = []
    for true, name in enumerate(behaviour.classes):
        whole = max(int(matrix[true].sum()), 1)
        cells = [Cell(int(number), number / whole, true == predicted) for predicted, number in enumerate(matrix[true])]
        rows.append((name, cells))
    return rows


def confusions(behaviour: Behaviour) -> list[Confusion]:
    """Pairs of classes that are confused, those that the student confuses more often than the teacher first."""
    names, counts = behaviour.classes, [one.confusion for one in (behaviour.teacher, behaviour.student)]
    pairs = dict.fromkeys(pair for each in counts for pair in each if pair[0] != pair[1])
    found = [
        Confusion(names[true], names[predicted], *(each.get((true, predicted), 0) for each in counts))
        for true, predicted in pairs
    ]
    found.sort(key=lambda one: (one.teacher - one.student, -one.student))
    return found[:_MOST_PAIRS]


def examples(behaviour: Behaviour) -> list[Example]:
    """The example images, as far as they can be shown; those that the student is surest of first."""
    return [
        Example(
            image="data:image/png;base64," + base64.b64encode(png).decode(),
            label=behaviour.classes[mistake.label],
            predicted=behaviour.classes[mistake.predicted],
            teacher=_percent(mistake.teacher),
            student=_percent(mistake.student),
            index=mistake.index,
        )
        for mistake, png in zip(behaviour.mistakes, behaviour.pngs, strict=False)
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def sureness(behaviour: Behaviour) -> list[Sureness]:
    """How sure both models are, and how often they are right."""
    found = []
    for name, answers in (("teacher", behaviour.teacher), ("student", behaviour.student)):
        bins = [one for one in answers.calibration.bins if one.images]
        confidence = sum(one.images * one.confidence for one in bins) / behaviour.images
        accuracy = sum(one.images * one.accuracy for one in bins) / behaviour.images
        found.append(Sureness(name, *map(format_share, (answers.calibration.error, confidence, accuracy))))
    return found


def calibration_rows(behaviour: Behaviour) -> list[tuple[str, Sequence[str]]]:
    """Rows of the table of calibration: range of confidence; images, confidence and accuracy of both models."""
    bins = [answers.calibration.bins for answers in (behaviour.teacher, behaviour.student)]
    rows = []
    for number, both in enumerate(zip(*bins, strict=True)):
        if not any(one.images for one in both):
            continue
        low, high = (100 * place / len(bins[0]) for place in (number, number + 1))
        cells = [
            text
            for one in both
            for text in (f"{one.images:,}", format_share(one.confidence), format_share(one.accuracy))
        ]
        rows.append((f"{low:.0f} to {high:.0f} %", cells))
    return rows
