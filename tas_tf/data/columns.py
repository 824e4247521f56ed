"""Labels in the columns of a table: classes, or a number for each output."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tas_tf.data.suitable import takes_classes
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.regression import Regression


def check_columns(file: Path, columns: Sequence[str], objective: Objective | None) -> None:
    """Checks that a table has as many columns of labels as a network needs.

    Raises:
        UserError: It has another number, or the network has outputs per pixel.
    """
    if objective is not None and objective.positions:
        raise UserError(
            f"`dataset`: {file} has labels for whole images, which don't suit {objective}. Expected a folder with "
            "images/ and masks/."
        )
    needed = 1 if takes_classes(objective) else objective.num_outputs
    if len(columns) != needed:
        what = "classes" if takes_classes(objective) else str(objective)
        raise UserError(
            f"`dataset`: {file} must have {needed} column{'s' if needed > 1 else ''} of labels for {what}. Received: "
            f"{len(columns)} ({', '.join(columns)}). `label_columns` chooses columns."
        )


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
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (objective.task != Regression.task and value not in (0, 1)):
            raise UserError(
                f"`dataset`: {file} must have {wanted} in the column {column} for {objective}. Received: {text!r} for "
                f"{path}."
            )
        return value

    return {
        path: tuple(read(path, column, text) for column, text in zip(columns, row, strict=True))
        for path, row in texts.items()
    }
