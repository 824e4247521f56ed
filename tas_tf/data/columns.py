"""Labels in the columns of a table: classes, a number for each output, or both for several outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tas_tf.data.form import Form
from tas_tf.data.suitable import check_class_count, takes_classes
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.several import Several

# Classes that are named in a line.
_TOLD = 10

#: Labels of each image: a class number or values.
LabelByPath = Mapping[str, int | tuple[float, ...]]


@dataclass(frozen=True)
class Texts:
    """What is written about an image: its split, weight, labels and further inputs."""

    split: str
    weight: str
    labels: tuple[str, ...]
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Labelled:
    """Labels as a network takes them.

    Attributes:
        names: Names of the classes or columns.
        labels: Label of each image by path, for several outputs side by side.
        note: A line for the user on where they come from.
        classes: Names of the classes of each of several outputs that has classes.
    """

    names: tuple[str, ...]
    labels: LabelByPath
    note: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def outputs_of(objective: Objective | None) -> tuple[str, ...]:
    """Names of the columns that the outputs of a network would have; empty if it has one output.

    >>> from tas_tf.objectives.classification import Classification
    >>> from tas_tf.objectives.several import Part
    >>> outputs_of(Several.of([Part("kind", Classification(3)), Part("place", Regression(2))]))
    ('kind', 'place_1', 'place_2')
    """
    if not isinstance(objective, Several):
        return ()
    return tuple(name for part in objective.parts for name in _numbered(part.name, _needed(part.objective)))


def read_labels(
    file: Path,
    columns: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    objective: Objective | None,
    *,
    weight: str = "",
) -> Labelled:
    """Reads labels as a network takes them.

    Args:
        file: Path of the table, for messages.
        columns: Names of the columns.
        texts: Texts of each image, by path.
        objective: What the network is for; by default classes.
        weight: Name of the column of weights, for messages.

    Raises:
        UserError: There is another number of columns than the network needs, it has outputs per pixel, or a text can't
            be a label.
    """
    parts = [(part.name, part.objective) for part in objective.parts] if isinstance(objective, Several) else []
    beside = f" The column {weight} holds weights." if weight else ""
    _check_columns(file, columns, objective, [one for _, one in parts] or [objective], beside)
    listed = f"{len(columns)} column{'s' if len(columns) > 1 else ''} ({', '.join(columns)})"
    if not parts:
        names, labels = _read_output(file, columns, texts, objective)
        what = f"{len(names)} classes" if takes_classes(objective) else str(objective)
        return Labelled(tuple(names), labels, f"`dataset`: labels of {file}: {listed}, {what}.")
    rows: dict[str, tuple[float, ...]] = dict.fromkeys(texts, ())
    said, classes, first = [], {}, 0
    for name, one in parts:
        mine = slice(first, first := first + _needed(one))
        names, labels = _read_output(file, columns[mine], {path: row[mine] for path, row in texts.items()}, one)
        told = ""
        if takes_classes(one):
            check_class_count(one, len(names), f"the column {columns[mine.start]} of {file}")
            labels = {path: (float(label),) for path, label in labels.items()}
            classes[name] = tuple(names)
            told = f" ({', '.join(names[:_TOLD])}{', ...' if len(names) > _TOLD else ''})"
        rows = {path: (*row, *labels[path]) for path, row in rows.items()}
        said.append(f"{', '.join(columns[mine])}{told} for {name}")
    return Labelled(tuple(columns), rows, f"`dataset`: labels of {file}: {'; '.join(said)}.", classes)


def inputs_of(form: Form | None) -> tuple[str, ...]:
    """Names of the columns of a network's inputs besides the images.

    >>> inputs_of(Form(("photo", "age", "place"), ((8, 8, 3), (1,), (2,))))
    ('age', 'place_1', 'place_2')
    """
    if form is None:
        return ()
    others = [number for number in range(len(form.shapes)) if number != form.image]
    return tuple(name for one in others for name in _numbered(form.inputs[one], math.prod(form.shapes[one])))


def read_inputs(file: Path, columns: Sequence[str], rows: Mapping[str, Texts]) -> dict[str, tuple[float, ...]]:
    """Reads inputs besides the images, by path.

    Raises:
        UserError: A text is no finite number.
    """
    found = {path: tuple(map(_number, row.inputs)) for path, row in rows.items()}
    for path, values in found.items():
        for column, value, text in zip(columns, values, rows[path].inputs, strict=True):
            if math.isnan(value):
                raise UserError(
                    f"`dataset`: {file} must have numbers in the column {column}, which the network reads. Received: "
                    f"{text!r} for {path}."
                )
    return found


def read_weights(file: Path, column: str, rows: Mapping[str, Texts], learned: Set[str]) -> dict[str, float]:
    """Reads weights of images, by path.

    Args:
        file: Path of the table, for messages.
        column: Name of the column.
        rows: What is written about each image, by path.
        learned: Paths of the training images.

    Raises:
        UserError: A text is no number of at least 0, or all of the training images are 0.
    """
    texts = {path: row.weight for path, row in rows.items()}
    found = {path: _number(text) for path, text in texts.items()}
    wrong = next((path for path, value in found.items() if not value >= 0), None)
    if wrong is not None or not any(found[path] for path in learned):
        received = "only 0" if wrong is None else f"{texts[wrong]!r} for {wrong}"
        raise UserError(
            f"`dataset`: {file} must have weights of at least 0 in the column {column}, not all of them 0. Received: "
            f"{received}."
        )
    return found


def _numbered(name: str, count: int) -> list[str]:
    """The name, or that many names with numbers behind."""
    return [name] if count == 1 else [f"{name}_{number}" for number in range(1, count + 1)]


def _needed(objective: Objective | None) -> int:
    """Number of columns for an output."""
    return 1 if takes_classes(objective) else objective.num_outputs


def _check_columns(
    file: Path,
    columns: Sequence[str],
    objective: Objective | None,
    outputs: Sequence[Objective | None],
    beside: str,
) -> None:
    """Checks that a table has as many columns of labels as a network needs.

    Raises:
        UserError: It has another number, or the network has outputs per pixel.
    """
    if objective is not None and objective.has_positions:
        raise UserError(
            f"`dataset`: {file} has labels for whole images, which don't suit {objective}. Expected a folder with "
            "images/ and masks/."
        )
    needed = sum(map(_needed, outputs))
    if len(columns) != needed:
        what = "classes" if takes_classes(objective) else objective.noun if len(outputs) > 1 else str(objective)
        raise UserError(
            f"`dataset`: {file} must have {needed} column{'s' if needed > 1 else ''} of labels for {what}. Received: "
            f"{len(columns)} ({', '.join(columns)}). `label_columns` chooses columns.{beside}"
        )


def _read_output(
    file: Path, columns: Sequence[str], texts: Mapping[str, Sequence[str]], objective: Objective | None
) -> tuple[Sequence[str], LabelByPath]:
    """Names and labels for one output."""
    if takes_classes(objective):
        return class_numbers({path: row[0] for path, row in texts.items()})
    return columns, read_values(file, columns, texts, objective)


def _number(text: str) -> float:
    """The finite number that a text stands for; otherwise NaN."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def class_numbers(texts: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Numbers classes in the order of their names, or in that of their values if all are whole numbers.

    Args:
        texts: Class of each image, by path.

    Returns:
        Names of the classes; number of the class of each image.

    >>> class_numbers({"a.png": "10", "b.png": "9"})
    (('9', '10'), {'a.png': 1, 'b.png': 0})
    >>> class_numbers({"a.png": "10.0", "b.png": "-2.0"})[0]
    ('-2.0', '10.0')
    """
    found = set(texts.values())
    are_numbers = all(re.fullmatch(r"-?[0-9]+(\.0+)?", name) for name in found)
    names = tuple(sorted(found, key=float if are_numbers else None))
    number = {name: label for label, name in enumerate(names)}
    return names, {path: number[text] for path, text in texts.items()}


def read_values(
    file: Path, columns: Sequence[str], texts: Mapping[str, Sequence[str]], objective: Objective
) -> dict[str, tuple[float, ...]]:
    """Reads numbers.

    Args:
        file: Path of the table, for messages.
        columns: Names of the columns.
        texts: Texts of each image, by path.
        objective: What the network is for.

    Raises:
        UserError: A text is no finite number; for decisions, it is neither 0 nor 1.
    """
    wanted = "numbers" if objective.task == Regression.task else "0 or 1"

    def read(path: str, column: str, text: str) -> float:
        value = _number(text)
        if math.isnan(value) or (objective.task != Regression.task and value not in (0, 1)):
            raise UserError(
                f"`dataset`: {file} must have {wanted} in the column {column} for {objective}. Received: {text!r} for "
                f"{path}."
            )
        return value

    return {
        path: tuple(read(path, column, text) for column, text in zip(columns, row, strict=True))
        for path, row in texts.items()
    }
