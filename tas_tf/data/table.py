"""Images named in a table, with the label of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import Listing, split_named
from tas_tf.data.source import Source
from tas_tf.errors import UserError

#: Names of columns, in any case.
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "subset", "set"),
}
_LISTED = 5

Row = Mapping[str, str]


def load_table(path: str, **options: Any) -> Source:
    """Reads a CSV file with columns for the path and the label of each image, and optionally one for its split.

    Paths are relative to the table's folder. Labels that are whole numbers are sorted as numbers, others as texts.

    Args:
        path: Path of the table, whose first line names the columns.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The table is missing or lacks a column, a split is unknown, an image has several labels, images can't
            be read, or an argument is missing.
    """
    table = Path(path).expanduser()
    if not path or not table.is_file():
        raise UserError(f"`dataset` names a missing table. Expected csv:FILE. Received: csv:{path}.")
    return load_files(f"csv:{path}", list_table(table), **options)


def list_table(table: Path) -> Listing:
    """Lists the images of a table.

    Raises:
        UserError: See `load_table`.
    """
    rows, unused = _read(table)
    notes = [f"`dataset`: columns of {table} that aren't used: {', '.join(unused)}."] if unused else []
    unlabelled = sum(not row["label"] for row in rows)
    if unlabelled:
        notes.append(f"`dataset`: {unlabelled} row(s) of {table} without a label are left out.")
    labels, splits = _unique(table, [row for row in rows if row["label"]])
    repeated = len(rows) - unlabelled - len(labels)
    if repeated:
        notes.append(f"`dataset`: {repeated} row(s) of {table} that repeat others are left out.")
    found = set(splits.values())
    if "validation" in found:
        used = "test" not in found
        notes.append(
            f"`dataset`: the validation images of {table} are those for scores, since it has no test images."
            if used
            else f"`dataset`: the validation images of {table} aren't used, since scores are those of its test images."
        )
        splits = {path: "test" if used and split == "validation" else split for path, split in splits.items()}
    names = _sorted(set(labels.values()))
    number = {name: label for label, name in enumerate(names)}
    files: dict[str, list[tuple[str, int]]] = {"train": []}
    for path, label in labels.items():
        if splits[path] != "validation":
            files.setdefault(splits[path], []).append((path, number[label]))
    return Listing(names, files, tuple(notes))


def _read(table: Path) -> tuple[list[Row], list[str]]:
    """Rows with `path`, `label` and `split`, which may be empty, and the names of other columns.

    Raises:
        UserError: The table can't be read or lacks a column.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        header = text.splitlines()[0] if text.strip() else ""
        separator = max(",;\t", key=header.count)
        lines = list(csv.DictReader(text.splitlines(), delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"`dataset`: can't read the table {table}: {error}.") from error
    given = [name for name in (header.split(separator) if not lines else lines[0]) if name is not None]
    columns = {
        kind: next((name for name in given if name.strip().strip('"').lower() in known), None)
        for kind, known in _COLUMNS.items()
    }
    for kind in ("path", "label"):
        if columns[kind] is None:
            raise UserError(
                f"`dataset`: {table} must have a column for the {kind} of each image, called "
                f"{', '.join(_COLUMNS[kind][:3])} or the like. Received: {', '.join(given) or 'nothing'}."
            )
    rows = [
        {kind: (line.get(name) or "").strip() if name is not None else "" for kind, name in columns.items()}
        for line in lines
    ]
    return rows, [name for name in given if name not in columns.values()]


def _unique(table: Path, rows: Sequence[Row]) -> tuple[dict[str, str], dict[str, str]]:
    """Label and split of each image by path.

    Raises:
        UserError: An image has several labels or splits, or a split is unknown.
    """
    labels: dict[str, str] = {}
    splits: dict[str, str] = {}
    several = []
    for row in rows:
        path = str(table.parent / Path(row["path"]).expanduser())
        split = split_named(row["split"] or "train")
        if split is None:
            raise UserError(
                f"`dataset`: {table} must have the splits train, val and test. Received: {row['split']!r} for {path}."
            )
        if (labels.setdefault(path, row["label"]), splits.setdefault(path, split)) != (row["label"], split):
            several.append(path)
    if several:
        raise UserError(
            f"`dataset`: {len(set(several))} image(s) of {table} have several labels or splits. Expected one row for "
            f"each image. Received: {', '.join(dict.fromkeys(several[:_LISTED]))}."
        )
    return labels, splits


def _sorted(names: set[str]) -> tuple[str, ...]:
    numbers = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int if numbers else None))
