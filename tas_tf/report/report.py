"""The report of a run: one dictionary, and two ways to show it."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from rich.console import Console
from rich.table import Table

from tas_tf.errors import UserError
from tas_tf.files import write_bytes
from tas_tf.report import figures, speed
from tas_tf.report.formatting import (
    KIND_NAMES,
    MISSING,
    format_bytes,
    format_count,
    format_ms,
    format_points,
    format_ratio,
    format_share,
)

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")
# Keys of a report that a rival can't be called.
RESERVED = frozenset(
    {"teacher", "student", "rivals", "comparison", "search", "shape", "history"}
    | {"budget", "seed", "settings", "command", "versions", "files"}
)
SAVED_MODEL = "saved_model"


def build_report(
    *,
    teacher: Mapping | None = None,
    student: Mapping | None = None,
    search: Mapping | None = None,
    export: Mapping | None = None,
    rivals: Mapping[str, Mapping] | None = None,
    qat: Mapping[str, Mapping] | None = None,
    shape: Mapping | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
    budget: str | None = None,
    seed: int | None = None,
    settings: Mapping | None = None,
    command: str | None = None,
    files: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict:
    """Gathers what the steps of a run measured; everything may be missing.

    Args:
        teacher: `metrics.json` of the teacher; `accuracy` (0 to 1, test set), `macs`, `params` are read.
        student: The same of the student.
        search: `metrics.json` of the search, handed on as it is; `budget_macs`, `width_entropy` (mean entropy
            of the width distributions as a share of the uniform one's) and `held_out_accuracy` are shown.
        export: `metrics.json` of the export: the student's formats, others' nested by name.
        rivals: Like `student`, by name, for models to compare with.
        qat: By the name of a model, `metrics.json` of its training with fake quantisation; `float_accuracy` is shown.
        shape: See `summarise_shape`.
        history: Values by epoch: `expected_macs`, `argmax_macs`, `held_out_accuracy`.
        budget: As it was asked for, e.g. `macs:0.5`.
        seed: Seed of the run.
        settings: Further settings by name.
        command: What reproduces the run.
        files: Where things lie, by label.
        versions: Package versions. Default: those installed.

    Returns:
        A dictionary that `json.dumps` takes: `teacher`, `student` and each rival by its name, all with
        `accuracy`, `macs`, `params`, `tflite` (by format), `saved_model` and `qat`; `rivals`, their names;
        `comparison`; and the rest of the arguments. NaN and infinity become `None`.

    Raises:
        UserError: If a rival has the name of another entry.
    """
    rivals, exported = rivals or {}, export or {}
    clash = sorted(RESERVED.intersection(rivals))
    if clash:
        raise UserError(f"`rivals` must not be called {', '.join(sorted(RESERVED))}. Received: {', '.join(clash)}.")
    # The student's formats stand at the top of the export's metrics, beside other models' names.
    own_formats = {name: value for name, value in exported.items() if "bytes" in value}
    models = {"teacher": (teacher, exported.get("teacher")), "student": (student, own_formats)}
    models |= {name: (metrics, exported.get(name)) for name, metrics in rivals.items()}
    report: dict = {name: {**_describe_model(*each), "qat": (qat or {}).get(name)} for name, each in models.items()}
    report |= {
        "rivals": list(rivals),
        "comparison": _compare(report["teacher"], report["student"]),
        "search": search,
        "shape": shape,
        "history": history,
        "budget": budget,
        "seed": seed,
        "settings": settings or {},
        "command": command,
        "files": files or {},
        "versions": versions or installed_versions(),
    }
    return _jsonable(report)


def summarise_shape(
    units: Sequence[Mapping],
    stages: Sequence[Mapping],
    shape: Mapping,
    *,
    dropped_units: Sequence[str] = (),
) -> dict:
    """Puts a found shape beside the full one.

    Args:
        units: Width units in order, each with `name` and its full `width`.
        stages: Stages in order, each with `name` and `blocks`, their number or a list of them.
        shape: A shape: `widths` by unit, `depths` by stage.
        dropped_units: Units that stand in dropped blocks.

    Returns:
        `{"units": [{"name", "width", "kept", "dropped"}], "stages": [{"name", "blocks", "kept"}]}`.
    """
    widths, depths, dropped = shape["widths"], shape["depths"], set(dropped_units)
    return {
        "units": [
            {
                "name": unit["name"],
                "width": unit["width"],
                "kept": widths.get(unit["name"], unit["width"]),
                "dropped": unit["name"] in dropped,
            }
            for unit in units
        ],
        "stages": [
            {
                "name": stage["name"],
                "blocks": _count(stage["blocks"]),
                "kept": depths.get(stage["name"], _count(stage["blocks"])),
            }
            for stage in stages
        ],
    }


def installed_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def print_table(report: Mapping, *, console: Console | None = None) -> None:
    """Prints teacher, student and rivals side by side, then where the files lie; `-` for what is missing."""
    console = console or Console()
    table = Table(title="Test set results")
    table.add_column("")
    for name in model_names(report):
        table.add_column(name, justify="right")
    for label, cells in comparison_rows(report):
        table.add_row(label, *cells)
    console.print(table)
    speeds = speed.compare_speed(report)
    if speeds:
        _print_speed(speeds, console)
    for label, path in report["files"].items():
        console.print(f"{label}: {path}", markup=False, highlight=False, soft_wrap=True)


def _print_speed(speeds: Sequence[speed.Speed], console: Console) -> None:
    table = Table(title="Student against teacher")
    for column in ("", "faster", "fewer MACs", "smaller file"):
        table.add_column(column, justify="right" if column else "left")
    for each in speeds:
        table.add_row(*speed.speed_cells(each))
    console.print(table)
    for each in speeds:
        if each.falls_short:
            console.print(speed.explain(each), markup=False, highlight=False, soft_wrap=True)


def render_html(report: Mapping, path: str | Path) -> Path:
    """Writes the report as one self-contained page; replaces an earlier one only once complete."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html").render(
        report=report,
        names=model_names(report),
        rows=comparison_rows(report),
        tiles=headline(report),
        facts=search_facts(report),
        speeds=[(each, speed.speed_cells(each)) for each in speed.compare_speed(report)],
        operator_cells=speed.operator_cells,
        format_ms=format_ms,
        figures=figures.draw_all(report),
    )
    return write_bytes(path, page.encode())


def model_names(report: Mapping) -> list[str]:
    """Returns the models of a report in the order in which they are shown."""
    return ["teacher", "student", *report["rivals"]]


def comparison_rows(report: Mapping) -> list[tuple[str, list[str]]]:
    """Returns the rows of the comparison: a label, then a cell for each model."""
    models = [report[name] for name in model_names(report)]
    rows = [
        ("test accuracy", [format_share(model["accuracy"]) for model in models]),
        ("MACs", [format_count(model["macs"]) for model in models]),
        ("parameters", [format_count(model["params"]) for model in models]),
    ]
    formats = list(dict.fromkeys(name for model in models for name in model["tflite"])) or ["fp32"]
    for name in formats:
        artefacts = [model["tflite"].get(name) or {} for model in models]
        rows += [
            (f"{name}.tflite accuracy", [format_share(artefact.get("accuracy")) for artefact in artefacts]),
            (
                f"{name}.tflite agreement with Keras",
                [format_share(artefact.get("agreement")) for artefact in artefacts],
            ),
            (f"{name}.tflite size", [format_bytes(artefact.get("bytes")) for artefact in artefacts]),
            (f"{name}.tflite latency", [_format_latency(artefact) for artefact in artefacts]),
        ]
    control = [(model["qat"] or {}).get("float_accuracy") for model in models]
    if any(value is not None for value in control):
        rows.append(("float, fine-tuned as long (whole test set)", [format_share(value) for value in control]))
    saved = [model[SAVED_MODEL] or {} for model in models]
    if any(saved):
        rows += [
            ("SavedModel size", [format_bytes(artefact.get("bytes")) for artefact in saved]),
            ("SavedModel latency", [_format_latency(artefact) for artefact in saved]),
        ]
    return rows


def headline(report: Mapping) -> list[tuple[str, str, str]]:
    """Returns the figures that a reader wants first: value, label, detail."""
    comparison, teacher, student = report["comparison"], report["teacher"], report["student"]
    tflite = [model["tflite"].get("fp32") or {} for model in (teacher, student)]
    pairs = {
        "macs": (format_count(teacher["macs"]), format_count(student["macs"])),
        "accuracy": (format_share(teacher["accuracy"]), format_share(student["accuracy"])),
        "latency": tuple(format_ms(artefact.get("latency_ms")) for artefact in tflite),
        "bytes": tuple(format_bytes(artefact.get("bytes")) for artefact in tflite),
    }
    detail = {key: f"{before} → {after}" for key, (before, after) in pairs.items()}
    return [
        (format_ratio(comparison["macs_reduction"]), "fewer multiply-adds", detail["macs"]),
        (format_points(comparison["accuracy_change"]), "test accuracy, in points", detail["accuracy"]),
        (format_ratio(comparison["speedup"].get("fp32")), "measured speed, fp32 TFLite", detail["latency"]),
        (format_ratio(comparison["size_reduction"].get("fp32")), "smaller fp32 TFLite file", detail["bytes"]),
    ]


def search_facts(report: Mapping) -> list[tuple[str, str]]:
    """Returns what tells one run from another: a label and its value."""
    search = report["search"] or {}
    kind = search.get("budget_kind", "macs")
    entropy = search.get("width_entropy")
    return [
        ("budget", report["budget"] or MISSING),
        (f"budget in {KIND_NAMES[kind]}", format_count(search.get(f"budget_{kind}"))),
        ("seed", MISSING if report["seed"] is None else str(report["seed"])),
        ("held-out accuracy at the end of the search", format_share(search.get("held_out_accuracy"))),
        ("mean width entropy, 1 = undecided", MISSING if entropy is None else f"{entropy:.3f}"),
        *report["versions"].items(),
    ]


def _describe_model(metrics: Mapping | None, exported: Mapping | None) -> dict:
    metrics, exported = metrics or {}, exported or {}
    return {
        **metrics,
        "accuracy": metrics.get("accuracy"),
        "macs": metrics.get("macs"),
        "params": metrics.get("params"),
        "tflite": {name: dict(value) for name, value in exported.items() if name != SAVED_MODEL},
        SAVED_MODEL: exported.get(SAVED_MODEL),
    }


def _compare(teacher: Mapping, student: Mapping) -> dict:
    """Returns how the student stands to the teacher; reductions and speed-ups are teacher / student."""
    shared = [name for name in teacher["tflite"] if name in student["tflite"]]
    accuracies = (student["accuracy"], teacher["accuracy"])
    return {
        "macs_reduction": _divide(teacher["macs"], student["macs"]),
        "params_reduction": _divide(teacher["params"], student["params"]),
        "accuracy_change": None if None in accuracies else accuracies[0] - accuracies[1],
        "speedup": {name: _divide_tflite(teacher, student, name, "latency_ms") for name in shared},
        "size_reduction": {name: _divide_tflite(teacher, student, name, "bytes") for name in shared},
    }


def _divide_tflite(teacher: Mapping, student: Mapping, format: str, key: str) -> float | None:
    return _divide(teacher["tflite"][format].get(key), student["tflite"][format].get(key))


def _divide(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def _format_latency(artefact: Mapping) -> str:
    latency, spread = artefact.get("latency_ms"), artefact.get("latency_spread_ms")
    if latency is None or spread is None:
        return format_ms(latency)
    return f"{format_ms(latency)} ± {spread / 2:.2g}"


def _count(blocks: int | Sequence) -> int:
    return blocks if isinstance(blocks, int) else len(blocks)


def _jsonable(value: object) -> object:
    """Copies nested mappings and sequences as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
