"""Images named in a table, with the labels of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tas_tf.data.columns import check_columns, class_numbers, read_values
from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import Label, Listing, split_named
from tas_tf.data.source import Source
from tas_tf.data.suitable import takes_classes
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective

#: Names of columns, in any case.
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
    "split": ("split", "subset", "set"),
    "weight": ("weight", "sample_weight"),
}
#: Names of the column of labels if there are others besides it.
_LABEL = ("label", "class", "class_name", "category", "target")
_LISTED = 5


@dataclass(frozen=True)
class Table:
    """The rows of a table.

    Attributes:
        file: Path of the table.
        columns: Names of the columns of labels.
        unused: Names of the columns that aren't used.
        rows: Path, split and labels of each row, as they are written.
    """

    file: Path
    columns: tuple[str, ...]
    unused: tuple[str, ...]
    rows: Sequence[tuple[str, str, tuple[str, ...]]]


def load_table(
    path: str, objective: Objective | None = None, *, label_columns: Sequence[str] = (), **options: Any
) -> Source:
    """Reads a CSV file with columns for the path and the labels of each image, and optionally one for its split.

    Paths are relative to the table's folder. A network for classes or a single decision takes one column of labels, of
    which whole numbers are sorted as numbers and others as texts. Other networks take a column of numbers for each
    output.

    Args:
        path: Path of the table, whose first line names the columns.
        objective: What the network is for; by default classes.
        label_columns: Names of the columns of labels. By default, the one called label, class, class_name, category or
            target; if there is none, all columns but those of paths and splits.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The table is missing or lacks a column, labels don't suit the objective, a split is unknown, an image
            has several rows of labels, files can't be used, or an argument is missing.
    """
    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise UserError(f"`dataset` names a missing table. Expected csv:FILE. Received: csv:{path}.")
    return load_files(f"csv:{path}", list_table(read_table(file, label_columns), objective), **options)


def list_table(table: Table, objective: Objective | None = None) -> Listing:
    """Lists the images of a table with their labels.

    Raises:
        UserError: See `load_table`.
    """
    file, classes = table.file, takes_classes(objective)
    check_columns(file, table.columns, objective)
    notes = [f"`dataset`: columns of {file} that aren't used: {', '.join(table.unused)}."] if table.unused else []
    labelled = [row for row in table.rows if all(row[2])]
    missing = len(table.rows) - len(labelled)
    if missing:
        notes.append(f"`dataset`: {missing} row(s) of {file} without a label are left out.")
    texts, splits = _unique(file, labelled)
    repeated = len(labelled) - len(texts)
    if repeated:
        notes.append(f"`dataset`: {repeated} row(s) of {file} that repeat others are left out.")
    found = set(splits.values())
    if "validation" in found:
        used = "test" not in found
        notes.append(
            f"`dataset`: the validation images of {file} are those for scores, since it has no test images."
            if used
            else f"`dataset`: the validation images of {file} aren't used, since scores are those of its test images."
        )
        splits = {path: "test" if used and split == "validation" else split for path, split in splits.items()}
    if classes:
        names, labels = class_numbers({path: texts_of[0] for path, texts_of in texts.items()})
    else:
        names, labels = table.columns, read_values(file, table.columns, texts, objective)
    what = f"{len(names)} classes" if classes else str(objective)
    columns = f"{len(table.columns)} column{'s' if len(table.columns) > 1 else ''} ({', '.join(table.columns)})"
    notes.insert(0, f"`dataset`: labels of {file}: {columns}, {what}.")
    files: dict[str, list[tuple[str, Label]]] = {"train": []}
    for path, label in labels.items():
        if splits[path] != "validation":
            files.setdefault(splits[path], []).append((path, label))
    return Listing(tuple(names), files, tuple(notes), classes)


def read_table(file: Path, label_columns: Sequence[str] = ()) -> Table:
    """Reads a table and finds its columns.

    Args:
        file: Path of the table.
        label_columns: See `load_table`.

    Raises:
        UserError: The table can't be read, lacks a column or has weights.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        header = text.splitlines()[0] if text.strip() else ""
        separator = max(",;\t", key=header.count)
        names, *lines = csv.reader(text.splitlines(), delimiter=separator) if header else [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"`dataset`: can't read the table {file}: {error}.") from error
    names = [name.strip() for name in names]
    place = {
        kind: next((number for number, name in enumerate(names) if name.lower() in known), None)
        for kind, known in _COLUMNS.items()
    }
    given = ", ".join(names) or "nothing"
    if place["path"] is None:
        raise UserError(
            f"`dataset`: {file} must have a column for the path of each image, called "
            f"{', '.join(_COLUMNS['path'][:3])} or the like. Received: {given}."
        )
    own = [number for number in place.values() if number is not None]
    others = [number for number in range(len(names)) if number not in own]
    if place["weight"] is not None and not label_columns:
        raise UserError(
            f"`dataset`: {file} has a column {names[place['weight']]}, but commands can't weight images. Remove the "
            "column, give the labels as `label_columns`, or train with `tas_tf.compress`."
        )
    chosen = _label_columns(file, names, others, label_columns)

    def cell(line: Sequence[str], number: int | None) -> str:
        return line[number].strip() if number is not None and number < len(line) else ""

    return Table(
        file,
        tuple(names[number] for number in chosen),
        tuple(names[number] for number in others if number not in chosen),
        [
            (cell(line, place["path"]), cell(line, place["split"]), tuple(cell(line, number) for number in chosen))
            for line in lines
            if line
        ],
    )


def _label_columns(file: Path, names: Sequence[str], others: Sequence[int], wanted: Sequence[str]) -> list[int]:
    """Numbers of the columns of labels.

    Raises:
        UserError: A column that is named is missing, or there is none.
    """
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(
            f"`label_columns` must name columns of {file}, which has {', '.join(names)}. Received: "
            f"{', '.join(unknown)}."
        )
    if len(set(wanted)) < len(wanted):
        raise UserError(f"`label_columns` must name each column once. Received: {', '.join(wanted)}.")
    if wanted:
        return [names.index(name) for name in wanted]
    called = [number for number in others if names[number].lower() in _LABEL]
    chosen = called[:1] or list(others)
    if not chosen:
        raise UserError(
            f"`dataset`: {file} must have a column for the label of each image, called {', '.join(_LABEL[:3])} or the "
            f"like, or several. Received: {', '.join(names)}."
        )
    return chosen


def _unique(
    file: Path, rows: Sequence[tuple[str, str, tuple[str, ...]]]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Labels and split of each image by path.

    Raises:
        UserError: An image has several labels or splits, or a split is unknown.
    """
    labels: dict[str, tuple[str, ...]] = {}
    splits: dict[str, str] = {}
    several = []
    for name, written, texts in rows:
        path = str(file.parent / Path(name).expanduser())
        split = split_named(written or "train")
        if split is None:
            raise UserError(
                f"`dataset`: {file} must have the splits train, val and test. Received: {written!r} for {path}."
            )
        if (labels.setdefault(path, texts), splits.setdefault(path, split)) != (texts, split):
            several.append(path)
    if several:
        raise UserError(
            f"`dataset`: {len(set(several))} image(s) of {file} have several labels or splits. Expected one row for "
            f"each image. Received: {', '.join(dict.fromkeys(several[:_LISTED]))}."
        )
    return labels, splits
