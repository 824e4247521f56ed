"""Collects the measurements of a run's steps in one dictionary, the report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from tas_tf.behaviour.behaviour import Behaviour

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy")
SAVED_MODEL = "saved_model"


def build_report(
    *,
    teacher: Mapping | None = None,
    student: Mapping | None = None,
    search: Mapping | None = None,
    export: Mapping | None = None,
    latency: Mapping | None = None,
    rivals: Mapping[str, Mapping] | None = None,
    qat: Mapping[str, Mapping] | None = None,
    shape: Mapping | None = None,
    history: Mapping[str, Sequence[float]] | None = None,
    behaviour: Behaviour | None = None,
    deploy: Mapping[str, Mapping] | None = None,
    budget: str | None = None,
    seed: int | None = None,
    settings: Mapping | None = None,
    command: str | None = None,
    files: Mapping[str, str] | None = None,
) -> dict:
    """Collects the measurements of a run's steps; every argument is optional.

    Args:
        teacher: `metrics.json` of the teacher; `metric`, the score that it names (by default `accuracy`), `macs` and
            `params` are read.
        student: `metrics.json` of the student, read like the teacher's.
        search: `metrics.json` of the search, passed on unchanged; `budget_macs`, `width_entropy` (mean entropy
            of the width distributions, as a share of the uniform distribution's) and `held_out_accuracy`, or
            that of the score that counts, are shown.
        export: `metrics.json` of the export: the student's formats, and other models' nested under their names.
        latency: Measurement of the student's file against a budget in time: `format`, `threads`, `budget_share`,
            `kept` (`None`: not known), and as far as they are known `share`, `noise`, `teacher_ms`, `student_ms`; if
            it belongs to another device, its name `device`, `predicted_share`, and `next`, what is left to do.
        rivals: `metrics.json` of other models to compare with, by name, read like the student's.
        qat: `metrics.json` of trainings with fake quantisation, by name of the model; `float_accuracy`, or that of
            the score that counts, is shown.
        shape: Result of `tas_tf.space.summary.summarise_shape`.
        history: Values by epoch: `expected_macs`, `argmax_macs`, `held_out_accuracy` or that of the score that
            counts.
        behaviour: Answers of teacher and student on the test images; agreement and calibration errors are kept.
        deploy: The student's TFLite files by format, each with its `path` and what `describe_file` returns.
        budget: Budget as the user gave it, e.g. `macs:0.5`.
        seed: Seed of the run.
        settings: Further settings by name.
        command: Command that reproduces the run.
        files: Paths by label.

    Returns:
        A dictionary that `json.dumps` accepts: `teacher`, `student` and each rival under its name, all with
        `accuracy`, `macs`, `params`, `tflite` (by format), `saved_model` and `qat`, and if there are classes with
        `by_class`, the score of each by name; `metric`, the name of the score that counts for the networks' task,
        which they have under this name; `rivals`, the rivals' names; `comparison`; `versions` of the installed
        packages; and the remaining arguments. NaN and infinity become `None`.
    """
    rivals, exported = rivals or {}, export or {}
    # The student's formats are at the top level of the export's metrics, next to the names of other models.
    own_formats = {name: value for name, value in exported.items() if "bytes" in value}
    models = {"teacher": (teacher, exported.get("teacher")), "student": (student, own_formats)}
    models |= {name: (metrics, exported.get(name)) for name, metrics in rivals.items()}
    report: dict = {name: {**_describe_model(*each), "qat": (qat or {}).get(name)} for name, each in models.items()}
    report |= {
        "metric": next((one["metric"] for one in (student, teacher) if one and "metric" in one), "accuracy"),
        "rivals": list(rivals),
    }
    report |= {
        "comparison": _compare(report["teacher"], report["student"], report["metric"]),
        "search": search,
        "latency": latency,
        "shape": shape,
        "history": history,
        "behaviour": None if behaviour is None else _summarise_behaviour(behaviour),
        "deploy": deploy or {},
        "budget": budget,
        "seed": seed,
        "settings": settings or {},
        "command": command,
        "files": files or {},
        "versions": installed_versions(),
    }
    return _jsonable(report)


def installed_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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


def _summarise_behaviour(behaviour: Behaviour) -> dict:
    """Agreement and calibration; the rest is in the folder of the comparison."""
    both = {"teacher": behaviour.teacher, "student": behaviour.student}
    return {
        "images": behaviour.images,
        "agreement": dataclasses.asdict(behaviour.agreement),
        "calibration_error": {name: answers.calibration.error for name, answers in both.items()},
    }


def _compare(teacher: Mapping, student: Mapping, metric: str) -> dict:
    """Compares student and teacher; reductions and speed-ups are teacher / student."""
    shared = [name for name in teacher["tflite"] if name in student["tflite"]]
    return {
        "macs_reduction": _divide(teacher["macs"], student["macs"]),
        "params_reduction": _divide(teacher["params"], student["params"]),
        "accuracy_change": _subtract(student["accuracy"], teacher["accuracy"]),
        "score_change": _subtract(student.get(metric), teacher.get(metric)),
        "speedup": {name: _divide_tflite(teacher, student, name, "latency_ms") for name in shared},
        "size_reduction": {name: _divide_tflite(teacher, student, name, "bytes") for name in shared},
    }


def _divide_tflite(teacher: Mapping, student: Mapping, format: str, key: str) -> float | None:
    return _divide(teacher["tflite"][format].get(key), student["tflite"][format].get(key))


def _subtract(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _divide(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def _jsonable(value: Any) -> Any:
    """Copies nested mappings and sequences in a form that JSON can represent."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
