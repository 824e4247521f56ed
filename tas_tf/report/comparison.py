"""Several runs side by side; runs that differ only in the seed share a row, with mean and spread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tas_tf.deploy.settings import format_to_time
from tas_tf.errors import UserError
from tas_tf.published import shape_file
from tas_tf.report.formatting import MISSING, format_bytes, format_count, format_ms, format_ratio
from tas_tf.report.scores import SCORES, Score, score_of
from tas_tf.runs.origins import flatten
from tas_tf.runs.records import is_made_from, read_record, read_result
from tas_tf.runs.run import Run

_DEFAULT_FORMAT = "fp32"


@dataclass(frozen=True)
class Figure:
    """A figure over several seeds.

    Attributes:
        mean: Mean of the values.
        spread: Sample standard deviation of the values; `None` for a single value.
        count: Number of values.
    """

    mean: float
    spread: float | None
    count: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Figure:
        """Computes mean and spread of one or more values."""
        spread = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), spread, len(values))


@dataclass(frozen=True)
class Member:
    """One run of a row.

    Attributes:
        path: Its folder.
        seed: Its seed.
        figures: Its figures by name, see `Row`.
    """

    path: Path
    seed: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """Runs whose folders have the same name.

    Attributes:
        name: Name of the folders.
        seeds: Seed of each run.
        kd: Whether students learned from the teacher; `None` for teachers.
        figures: Figures by name: the score that counts, such as `accuracy` (0 to 1, test set), `macs`, `params`,
            `seconds` (of the last training), `search_seconds`, `bytes` and `latency_ms` (of the TFLite file),
            `teacher_latency_ms` (timed in turns with the student) and `speedup` (teacher's latency over student's);
            only figures that all runs have.
        format: Format of that file, see `compare_runs`.
        metric: Name of the score that counts.
        members: The runs.
        teacher: Figures of the teachers of these students, as far as they are known.
    """

    name: str
    seeds: tuple[int, ...]
    kd: bool | None
    figures: Mapping[str, Figure]
    format: str = _DEFAULT_FORMAT
    metric: str = "accuracy"
    members: tuple[Member, ...] = ()
    teacher: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the row as plain data."""
        figures = {name: asdict(figure) for name, figure in self.figures.items()}
        named = {"name": self.name, "seeds": list(self.seeds), "kd": self.kd, "format": self.format}
        return {**named, "metric": self.metric, **figures}


def compare_runs(folders: Sequence[str | Path]) -> list[Row]:
    """Reads runs and groups them by folder name: `seed0/tas` and `seed1/tas` make the row `tas`.

    A row shows the TFLite file of the format that a budget in time refers to; otherwise of one that all runs have,
    fp32 if possible, or else of the row's own first format.

    Args:
        folders: Run folders. A run without a student is represented by its teacher.

    Returns:
        A row for each name, in the order of their first runs.

    Raises:
        UserError: If a folder holds no result, or runs with one name have the same seed or differ in more than the
            seed.
    """
    groups: dict[str, list[Run]] = {}
    for folder in folders:
        run = Run(folder)
        groups.setdefault(run.path.resolve().name, []).append(run)
    return make_rows(groups)


def make_rows(groups: Mapping[str, Sequence[Run]], teacher: Run | None = None) -> list[Row]:
    """Reads the runs of each row; the rows show files of one format if there is one that all of them have.

    Args:
        groups: The runs by name of the row.
        teacher: See `make_row`.

    Raises:
        UserError: See `compare_runs`.
    """
    preferred = next(iter(_shared_formats([run for runs in groups.values() for run in runs])), _DEFAULT_FORMAT)
    return [make_row(name, runs, teacher, preferred) for name, runs in groups.items()]


def print_comparison(rows: Sequence[Row], console: Console) -> None:
    """Prints a table; `±` is the sample standard deviation over seeds."""
    table = Table(title="Test set results")
    for column in ("", "seeds", "KD", "format"):
        table.add_column(column)
    scores = [SCORES[name] for name in dict.fromkeys(row.metric for row in rows)]
    for title, _, _ in table_columns(scores):
        table.add_column(title, justify="right")
    for row in rows:
        kd = {True: "yes", False: "no", None: MISSING}[row.kd]
        format = row.format if "bytes" in row.figures else MISSING
        table.add_row(row.name, ", ".join(map(str, row.seeds)), kd, format, *cells(row, scores))
    console.print(table)
    if note := formats_note(rows):
        console.print(note)


def formats_note(rows: Sequence[Row]) -> str:
    """Tells that files of different formats are compared; empty if they are of one."""
    formats = dict.fromkeys(row.format for row in rows if "bytes" in row.figures)
    if len(formats) < 2:
        return ""
    return f"File, latency and speed-up are of files of different formats: {', '.join(formats)}."


def cells(row: Row, scores: Sequence[Score] | None = None) -> list[str]:
    """Returns the figures of a row as text for a table.

    Args:
        row: The row.
        scores: Scores of all rows, which the table shows first; by default, the one that counts for this row.
    """
    columns = table_columns([SCORES[row.metric]] if scores is None else scores)
    return [with_spread(row.figures.get(name), write) for _, name, write in columns]


def table_columns(scores: Sequence[Score]) -> list[tuple[str, str, Callable[[float], str]]]:
    """Title, name of the figure and its form in text of each column.

    Args:
        scores: Scores of all rows, which come first.
    """
    first: list[tuple[str, str, Callable[[float], str]]] = [
        (f"test {score.note}", score.name, score.written) for score in scores
    ]
    return [*first, *((title, name, write) for title, (name, write) in _COLUMNS.items())]


def with_spread(figure: Figure | None, write: Callable[[float], str]) -> str:
    """Writes a mean and, if there is one, its spread with the same unit and number of decimals."""
    if figure is None:
        return MISSING
    text = write(figure.mean)
    found = re.match(r"(-?[\d.]+)(.*)", text)  # None for NaN and infinity
    if not figure.spread or not figure.mean or found is None:
        return text
    number, unit = found.groups()
    spread = figure.spread * float(number) / figure.mean
    return f"{number} ± {spread:.{len(number.partition('.')[2])}f}{unit}"


_COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "MACs": ("macs", format_count),
    "parameters": ("params", format_count),
    "file": ("bytes", format_bytes),
    "latency": ("latency_ms", format_ms),
    "speed-up": ("speedup", format_ratio),
}


def make_row(name: str, runs: Sequence[Run], teacher: Run | None = None, preferred: str = _DEFAULT_FORMAT) -> Row:
    """Reads runs that differ only in the seed.

    Args:
        name: Name of the row.
        runs: The runs, at least one. A run without a student is represented by its teacher.
        teacher: The run that holds the teacher of all of them; by default, what each run knows of its own.
        preferred: Format of the file to show if no budget in time names one and the runs have it.

    Raises:
        UserError: See `compare_runs`.
    """
    step = "student" if runs[0].metrics("student").exists() else "teacher"
    for run in runs:
        if not run.metrics(step).exists():
            raise UserError(f"`compare`: {run.path} holds no trained {step}: there is no {run.metrics(step)}.")
    metrics = [read_result(run.metrics(step)) for run in runs]
    seeds = tuple(one.get("seed", 0) for one in metrics)  # a teacher from another run has no seed
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"`compare`: runs with the same folder name must differ in the seed, but runs called `{name}` have the "
            f"seeds {', '.join(map(str, seeds))}. Give each run its own `seed`, or their folders different names."
        )
    _check_alike(name, runs)
    format, there = _format_of_budget(runs[0]) or preferred, _shared_formats(runs)
    if there:
        format = format_to_time(format, there) or (preferred if preferred in there else there[0])
    score = score_of(metrics[0])
    each = [_figures(run, own, format, score) for run, own in zip(runs, metrics, strict=True)]
    teachers = [_teacher_figures(run, teacher, format, score) for run in runs] if step == "student" else []
    members = tuple(Member(run.path, *pair) for run, *pair in zip(runs, seeds, each, strict=True))
    kd = metrics[0].get("kd") if step == "student" else None
    return Row(name, seeds, kd, _over(each), format, score.name, members, _over(teachers))


def _format_of_budget(run: Run) -> str | None:
    """The format that a budget in time refers to, on this machine or on another device."""
    search = _read(run.metrics("search"))
    wanted = search.get("latency_format") if search.get("budget_kind") == "latency" else None
    return _read(run.latency_json).get("format", wanted)


def _shared_formats(runs: Sequence[Run]) -> list[str]:
    """Formats that all runs with files have, fp32 first."""
    each = [formats for run in runs if (formats := _exported(run))]
    shared = [format for format in (each[0] if each else ()) if all(format in formats for formats in each)]
    return sorted(shared, key=lambda format: format != _DEFAULT_FORMAT)


def _exported(run: Run) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Figures of the files of student and teacher by format, without those of an earlier student."""
    exported = _read(run.export_dir / "metrics.json")
    if not exported or not is_made_from(run.export_dir, "student", run.student_model):
        return {}
    teachers = exported.get("teacher", {})
    return {format: (exported[format], file) for format, file in teachers.items() if format in exported}


def _over(each: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Mean and spread of the figures that all runs have."""
    shared = [key for key in (each[0] if each else ()) if all(key in one for one in each)]
    return {key: Figure.over([one[key] for one in each]) for key in shared}


def _teacher_figures(run: Run, teacher: Run | None, format: str, score: Score) -> dict[str, float]:
    """Figures of a student's teacher: its own, as the student's are, and those of its file, timed with the student's.

    The score is the Keras model's on the whole test set, never the file's, which may be of fewer images.
    """
    own = _teacher_metrics(run, teacher)
    found = {key: own[key] for key in (score.name, "macs", "params") if own.get(key) is not None}
    if format in (files := _exported(run)):
        file = files[format][1]
        found |= {key: file[key] for key in ("bytes", "latency_ms") if file.get(key) is not None}
    return found


def _teacher_metrics(run: Run, teacher: Run | None) -> dict[str, Any]:
    """Metrics of the teacher, which may be in another folder: the report has them, if it is of the current student."""
    path = (teacher or run).metrics("teacher")
    if path.exists():
        return read_result(path)
    report, student = _read(run.report_json), _read(run.metrics("student"))
    shown = report.get("student") or {}
    is_current = bool(student) and all(shown.get(key) == value for key, value in student.items() if key in shown)
    return report.get("teacher") or {} if is_current else {}


def _figures(run: Run, own: Mapping[str, Any], format: str, score: Score) -> dict[str, float]:
    """Returns the figures of one run, without measurements of an earlier student or shape."""
    figures = {key: own[key] for key in (score.name, "macs", "params", "seconds") if key in own}
    searched, searched_seconds = _shape_folder(run), _read(_shape_folder(run) / "metrics.json").get("seconds")
    if searched_seconds is not None and is_made_from(run.path / "student", "shape", searched / "shape.json"):
        figures["search_seconds"] = searched_seconds
    if format in (files := _exported(run)):
        lite, teacher = files[format]
        figures |= {key: lite[key] for key in ("bytes", "latency_ms")}
        figures |= {"teacher_latency_ms": teacher["latency_ms"], "speedup": teacher["latency_ms"] / lite["latency_ms"]}
    return figures


def _shape_folder(run: Run) -> Path:
    """Returns the folder with the shape of a run, which is another run's if the student was given its shape."""
    given = _read(run.metrics("student")).get("shape")
    return shape_file(given).parent if given else run.search_shape.parent


def _check_alike(name: str, runs: Sequence[Run]) -> None:
    """Rejects runs that differ in the settings of a step other than the seed."""
    for step in ("search", "teacher", "student", "export"):
        folders = [_shape_folder(run) if step == "search" else run.path / step for run in runs]
        settings = [flatten(read_record(folder / "digest.json")["settings"]) for folder in folders]
        settings = [each for each in settings if each]
        keys = {key for each in settings for key in each if key.rpartition(".")[2] != "seed"}
        differing = sorted(key for key in keys if any(each.get(key) != settings[0].get(key) for each in settings))
        if differing:
            raise UserError(
                f"`compare`: runs with the same folder name may differ only in the seed, but runs called `{name}` "
                f"differ in the settings {', '.join(f'`{key}`' for key in differing)} ({step}). "
                "Give their folders different names."
            )


def _read(path: Path) -> dict[str, Any]:
    return read_result(path) if path.exists() else {}
