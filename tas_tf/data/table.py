"""Images named in a table, with the labels of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tas_tf.data.columns import Texts, inputs_of, outputs_of, read_inputs, read_labels, read_weights
from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import Label, Listing, split_named
from tas_tf.data.form import Form
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
        weight: Name of the column of weights; empty without one.
        inputs: Names of the columns of further inputs.
        rows: Path and texts of each row.
    """

    file: Path
    columns: tuple[str, ...]
    unused: tuple[str, ...]
    weight: str
    inputs: tuple[str, ...]
    rows: Sequence[tuple[str, Texts]]


def load_table(
    path: str,
    objective: Objective | None = None,
    *,
    label_columns: Sequence[str] = (),
    form: Form | None = None,
    **options: Any,
) -> Source:
    """Reads a CSV file with columns for the path and the labels of each image, and optionally for its split and weight.

    Paths are relative to the table's folder. A network for classes or a single decision takes one column of labels, of
    which whole numbers are sorted as numbers and others as texts. Other networks take a column of numbers for each
    output. A network with several outputs takes the columns of each, one after another. Inputs besides the images are
    read from columns that are called like them, such as `age`, or `place_1` and `place_2` for an input of two numbers.

    Args:
        path: Path of the table, whose first line names the columns.
        objective: What the network is for; by default classes.
        label_columns: Names of the columns of labels. By default, the one called label, class, class_name, category or
            target, or for several outputs those called like the outputs; if there are none, all columns but those of
            paths, splits, weights and inputs.
        form: What the network takes, if it has several inputs.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The table is missing or lacks a column, labels don't suit the objective, a split is unknown, an image
            has several rows of labels, files can't be used, or an argument is missing.
    """
    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise UserError(f"`dataset` names a missing table. Expected csv:FILE. Received: csv:{path}.")
    table = read_table(file, label_columns, outputs=outputs_of(objective), inputs=inputs_of(form))
    return load_files(f"csv:{path}", list_table(table, objective), **options)


def list_table(table: Table, objective: Objective | None = None) -> Listing:
    """Lists the images of a table with their labels.

    Raises:
        UserError: See `load_table`.
    """
    file = table.file
    notes = [f"`dataset`: columns of {file} that aren't used: {', '.join(table.unused)}."] if table.unused else []
    labelled = [(path, texts) for path, texts in table.rows if all(texts.labels)]
    missing = len(table.rows) - len(labelled)
    if missing:
        notes.append(f"`dataset`: {missing} row(s) of {file} without a label are left out.")
    rows = _unique(file, labelled)
    splits = {path: split_named(texts.split or "train") for path, texts in rows.items()}
    repeated = len(labelled) - len(rows)
    if repeated:
        notes.append(f"`dataset`: {repeated} row(s) of {file} that repeat others are left out.")
    if "validation" in splits.values():
        used = "test" not in splits.values()
        notes.append(
            f"`dataset`: the validation images of {file} are those for scores, since it has no test images."
            if used
            else f"`dataset`: the validation images of {file} aren't used, since scores are those of its test images."
        )
        splits = {path: "test" if used and split == "validation" else split for path, split in splits.items()}
    texts = {path: row.labels for path, row in rows.items()}
    found = read_labels(file, table.columns, texts, objective, weight=table.weight)
    notes.insert(0, found.note)
    if table.weight:
        notes.append(f"`dataset`: the column {table.weight} of {file} weighs training images.")
    if table.inputs:
        notes.append(f"`dataset`: columns of {file} that the network reads: {', '.join(table.inputs)}.")
    files: dict[str, list[tuple[str, Label]]] = {"train": []}
    for path, label in found.labels.items():
        if splits[path] != "validation":
            files.setdefault(splits[path], []).append((path, label))
    used = {path: row for path, row in rows.items() if splits[path] != "validation"}
    learned = {path for path, split in splits.items() if split == "train"}
    return Listing(
        found.names,
        files,
        tuple(notes),
        takes_classes(objective),
        output_classes=found.classes,
        weights=read_weights(file, table.weight, used, learned) if table.weight else {},
        inputs=read_inputs(file, table.inputs, used) if table.inputs else {},
    )


def read_table(
    file: Path, label_columns: Sequence[str] = (), *, outputs: Sequence[str] = (), inputs: Sequence[str] = ()
) -> Table:
    """Reads a table and finds its columns.

    Args:
        file: Path of the table.
        label_columns: See `load_table`.
        outputs: Names of the columns of several outputs.
        inputs: Names of the columns of further inputs.

    Raises:
        UserError: The table can't be read or lacks a column.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        header = text.splitlines()[0] if text.strip() else ""
        separator = max(",;\t", key=header.count)
        names, *lines = csv.reader(text.splitlines(), delimiter=separator) if header else [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"`dataset`: can't read the table {file}: {error}.") from error
    names = [name.strip() for name in names]
    given = ", ".join(names) or "nothing"
    meant = (*label_columns, *inputs, *outputs)
    twice = [
        name for name in dict.fromkeys(meant) if names.count(name) > 1 or (name in label_columns and name in inputs)
    ]
    if twice:
        raise UserError(
            f"`dataset`: {file} must have each column once, either to read or to learn. Received: {', '.join(twice)} "
            f"twice, of {given}."
        )
    # What is learned or read may be called a weight.
    free = [number for number, name in enumerate(names) if name not in meant]
    place = {
        kind: next((number for number in free if names[number].lower() in known), None)
        for kind, known in _COLUMNS.items()
    }
    if place["path"] is None:
        raise UserError(
            f"`dataset`: {file} must have a column for the path of each image, called "
            f"{', '.join(_COLUMNS['path'][:3])} or the like. Received: {given}."
        )
    lacking = [name for name in inputs if name not in names]
    if lacking:
        raise UserError(
            f"`dataset`: {file} must have columns for the inputs of the network, {', '.join(inputs)}. Received: "
            f"{given}."
        )
    read = [names.index(name) for name in inputs]
    own = [number for number in (*place.values(), *read) if number is not None]
    others = [number for number in range(len(names)) if number not in own]
    chosen = _label_columns(file, names, others, label_columns, outputs)

    def cell(line: Sequence[str], number: int | None) -> str:
        return line[number].strip() if number is not None and number < len(line) else ""

    return Table(
        file,
        tuple(names[number] for number in chosen),
        tuple(names[number] for number in others if number not in chosen),
        "" if place["weight"] is None else names[place["weight"]],
        tuple(inputs),
        [
            (
                str(file.parent / Path(cell(line, place["path"])).expanduser()),
                Texts(
                    cell(line, place["split"]),
                    cell(line, place["weight"]),
                    *(tuple(cell(line, number) for number in numbers) for numbers in (chosen, read)),
                ),
            )
            for line in lines
            if line
        ],
    )


def _label_columns(
    file: Path, names: Sequence[str], others: Sequence[int], wanted: Sequence[str], outputs: Sequence[str]
) -> list[int]:
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
    if outputs:
        called = _called(file, names, outputs)
    else:
        called = [number for number in others if names[number].lower() in _LABEL][:1]
    chosen = called or list(others)
    if not chosen:
        raise UserError(
            f"`dataset`: {file} must have a column for the label of each image, called {', '.join(_LABEL[:3])} or the "
            f"like, or several. Received: {', '.join(names)}."
        )
    return chosen


def _called(file: Path, names: Sequence[str], outputs: Sequence[str]) -> list[int]:
    """Numbers of the columns that are called like outputs, in any case; empty if none is.

    Raises:
        UserError: Only some outputs have such a column.
    """
    known = {name.lower(): number for number, name in enumerate(names)}
    lacking = [name for name in outputs if name.lower() not in known]
    if lacking and len(lacking) < len(outputs):
        raise UserError(
            f"`dataset`: {file} has columns for some outputs of the network but none called {', '.join(lacking)}. "
            f"Received: {', '.join(names)}. `label_columns` names a column for each output, in order."
        )
    return [] if lacking else [known[name.lower()] for name in outputs]


def _unique(file: Path, rows: Sequence[tuple[str, Texts]]) -> dict[str, Texts]:
    """What is written about each image by path.

    Raises:
        UserError: Rows of an image differ, or a split is unknown.
    """
    found: dict[str, Texts] = {}
    several = []
    for path, texts in rows:
        if texts.split and split_named(texts.split) is None:
            raise UserError(
                f"`dataset`: {file} must have the splits train, val and test. Received: {texts.split!r} for {path}."
            )
        if found.setdefault(path, texts) != texts:
            several.append(path)
    if several:
        raise UserError(
            f"`dataset`: {len(set(several))} image(s) of {file} have several labels, splits, weights or inputs. "
            f"Expected one row for each image. Received: {', '.join(dict.fromkeys(several[:_LISTED]))}."
        )
    return found
