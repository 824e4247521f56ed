"""Writes what a report knows about each network for TensorBoard, so that it compares runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.board.pictures import draw_captioned, draw_confusion
from tas_tf.board.results import Result, write_result
from tas_tf.extras import missing_modules
from tas_tf.report.scores import SCORES
from tas_tf.runs.config import RunConfig
from tas_tf.runs.workspace import Workspace
from tas_tf.settings import describe_settings, recorded

# A picture of more classes is only noise.
_MOST_CLASSES = 200


def log_results(workspace: Workspace, report: Mapping[str, Any], behaviour: Behaviour | None, folder: Path) -> None:
    """Writes a row for teacher, student and each rival that was measured.

    Args:
        workspace: The run.
        report: The report, see `tas_tf.report.report.build_report`.
        behaviour: What teacher and student answer on the test images, if that is known.
        folder: An empty folder.
    """
    config = workspace.config
    runs = {"teacher": config, "student": config, **{name: config.rival(name) for name in report["rivals"]}}
    for name, run in runs.items():
        scalars = dict(_measured(report[name]))
        if not scalars:
            continue
        settings = {"network": name, **_settings(run)}
        texts = images = {}
        if name == "student":
            texts = {"run/command": f"```\n{report['command']}\n```"}
            images = _pictures(behaviour)
        write_result(folder / name, Result(settings, scalars, texts, images))


def _settings(config: RunConfig) -> dict[str, Any]:
    """What tells runs apart: the main settings, and those of the run's steps that differ from their defaults."""
    finding = ["race"] if config.races else []
    searching = ["search"] if config.race.searched or not config.races else []
    sections = ("network", "data", "space", "teacher", "ranking", *finding, *searching, "student")
    changed = {
        f"{section}.{name}": value
        for section in sections
        for name, value in recorded(getattr(config, section)).items()
        if value != describe_settings(type(getattr(config, section)))[name].default
    }
    main = {"model": config.network.model, "data.dataset": config.data.dataset, "data.seed": config.data.seed}
    main |= {name: getattr(config, name) for name in ("recipe", "time", "inherit", "kd", "shape", "precision")}
    return {**main, "budget": str(config.budget), **changed}


def _pictures(found: Behaviour | None) -> dict[str, np.ndarray]:
    """What teacher and student confuse, and images that only the teacher recognises, by tag."""
    if found is None or missing_modules("report"):
        return {}
    matrices = {name: getattr(found, name).matrix(len(found.classes)) for name in ("teacher", "student")}
    pictures = {}
    if len(found.classes) <= _MOST_CLASSES:
        pictures["behaviour/confusion"] = draw_confusion(matrices, found.classes)
    if found.pngs:
        captions = [
            f"{found.classes[one.label]}\nstudent: {found.classes[one.predicted]} ({one.student:.2f})"
            for one in found.mistakes
        ]
        pictures["behaviour/only_the_teacher_is_right"] = draw_captioned(found.pngs, captions)
    return pictures


def _measured(model: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Measurements of a network by tag: scores on the test set, costs, and size and latency of each file."""
    for name in ("loss", *SCORES):
        if isinstance(value := model.get(name), int | float):
            yield f"test/{name}", value
    for name in ("macs", "params"):
        if model.get(name) is not None:
            yield f"cost/{name}", model[name]
    for format, file in model["tflite"].items():
        for name in ("bytes", "latency_ms", "score", "accuracy"):
            if isinstance(value := file.get(name), int | float):
                yield f"{format}/{name}", value
