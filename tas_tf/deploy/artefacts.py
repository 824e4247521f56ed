"""Everything in an export folder: each model in each format, verified and timed, with its metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tas_tf.deploy.agreement import TOLERANCES
from tas_tf.deploy.arrays import Arrays, each, listed
from tas_tf.deploy.converters import check_calibration
from tas_tf.deploy.jobs import Extras, Job, make_job
from tas_tf.deploy.latency import time_interleaved
from tas_tf.deploy.layers import layers_of_file
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.micro.export import export_c_array
from tas_tf.deploy.profile import profile_file
from tas_tf.deploy.saved_model import LoadedSavedModel, write_frozen, write_saved_model
from tas_tf.deploy.scored_on import ScoredOn
from tas_tf.deploy.settings import FORMATS, INTEGER_FORMATS, Checks, ExportSettings
from tas_tf.deploy.tflite import write_tflite
from tas_tf.deploy.verify import ArtefactMetrics, check_score, verify_artefact
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.graph.graph import Graph
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.objective import Objective
from tas_tf.replacing import put_back, replace_together, scratch_folder

METRICS_FILE = "metrics.json"
STUDENT = "student"
_SOURCE = ".cc"
# With the usual number of rounds, a large network would take minutes.
_PROFILE_SECONDS = 20


def export_models(
    models: Mapping[str, keras.Model],
    out_dir: str | Path,
    *,
    images: Arrays,
    labels: np.ndarray,
    objective: Objective | None = None,
    formats: Sequence[str] = ExportSettings.formats,
    c_array: bool = ExportSettings.c_array,
    preprocessing_layers: Sequence[keras.layers.Layer] = (),
    extras: Extras | None = None,
    checks: Checks | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Writes models in several formats, checks each by loading it again, and times them side by side.

    The student's artefacts are `out_dir/saved_model` and `out_dir/fp32.tflite`; those of any other model have the
    same names under `out_dir/<name>`. Existing artefacts are replaced after all new ones pass, all at once; those of
    formats and models that aren't written are removed. Other files are left alone. A model in mixed precision is
    exported and compared in float32.

    Args:
        models: Classifiers by name: `student`, usually `teacher`, optionally rivals.
        out_dir: Folder to write.
        images: Test images as the artefacts take them: normalised float32, or raw with preprocessing layers. Several
            inputs are given by name.
        labels: Labels as the objective has them: for classes, integers `[n]`.
        objective: What the outputs mean; by default, the end of the student tells.
        formats: Names from `FORMATS`.
        c_array: Whether the student's integer formats are also written as C++ arrays, see `export_c_array`.
        preprocessing_layers: Layers put inside the graphs.
        extras: Calibration images, quantised networks and metadata that some formats need.
        checks: How files are checked and timed.
        progress: Called with a line of text before each step.

    Returns:
        The content of `metrics.json`: the student's metrics by format, and those of each other model under its name.

    Raises:
        UserError: If an argument is invalid.
        ExportError: If a model can't be converted, or an artefact computes something else or its score is too low.
    """
    out_dir, extras, checks = Path(out_dir), extras or Extras(), checks or Checks()
    _check_arguments(models, out_dir, formats, extras)
    _check_alike(extras.calibration, images, formats)
    graph = Graph.from_model(models[STUDENT])
    known = choose_objective(graph) if objective is None else objective
    activations = {end.name: graph.activation_of(end) for end in graph.ends}
    test = ScoredOn(each(np.asarray, images), np.asarray(labels), known, activations)
    report = progress or (lambda line: None)
    report("computing the reference outputs")
    jobs = [make_job(name, model, preprocessing_layers, test, extras) for name, model in models.items()]
    with _staging(out_dir) as partial:
        measured = {}
        for format in formats:
            report(f"{format}: writing, checking and timing {', '.join(models)}")
            measured[format] = _export_format(format, jobs, partial, test, extras, checks)
            if c_array and format in INTEGER_FORMATS:
                path = artefact_path(partial, format)
                micro = export_c_array(path, path.with_suffix(_SOURCE))
                report(f"{format}: {micro.summary}")
                own = measured[format]
                own[STUDENT] = dataclasses.replace(own[STUDENT], micro=micro.to_json())
        metrics = _by_model(measured)
        write_json(partial / METRICS_FILE, metrics)
        paths = paths_of_export(out_dir, models)
        replace_together(partial, [path.relative_to(out_dir) for path in paths])
    return metrics


def artefact_path(root: str | Path, format: str, *, model: str = STUDENT) -> Path:
    """Returns the path of a model's artefact in an export folder: the student's at the top, others under their name."""
    folder = Path(root) if model == STUDENT else Path(root) / model
    return folder / (format if format == "saved_model" else f"{format}.tflite")


def files_of(root: str | Path, format: str, *, model: str = STUDENT, c_array: bool = True) -> list[Path]:
    """Lists the files of a model in a format: the artefact, and the C++ array and its header that belong to it.

    Args:
        root: The export folder.
        format: Name of the format.
        model: Name of the model.
        c_array: Whether there is an array, for the student in formats of integers.
    """
    path = artefact_path(root, format, model=model)
    has_array = c_array and model == STUDENT and format in INTEGER_FORMATS
    return [path, *([path.with_suffix(_SOURCE), path.with_suffix(".h")] if has_array else [])]


def paths_of_export(out_dir: Path, models: Iterable[str]) -> list[Path]:
    """Lists the paths that an export may have, whether they exist or not.

    Args:
        out_dir: The export folder.
        models: Names of models, in addition to those that an earlier export into the folder has.
    """
    earlier: dict = {}
    with contextlib.suppress(UserError, TypeError):  # missing, or damaged
        earlier = {**read_json(out_dir / METRICS_FILE)}
    names = dict.fromkeys([*models, *(name for name in earlier if name not in FORMATS)])
    files = [files_of(out_dir, format, model=model) for model in names for format in FORMATS]
    return [*itertools.chain(*files), out_dir / METRICS_FILE]


@contextlib.contextmanager
def _staging(out_dir: Path) -> Iterator[Path]:
    """Provides a scratch folder inside `out_dir`: on the same file system, files are moved by renaming."""
    is_new = not out_dir.exists()
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        put_back(out_dir)
        with scratch_folder(out_dir) as scratch:
            yield scratch
    except BaseException:
        if is_new:
            # A folder that isn't empty stays; the first error is the one to report.
            with contextlib.suppress(OSError):
                out_dir.rmdir()
        raise


def _export_format(
    format: str,
    jobs: Sequence[Job],
    root: Path,
    test: ScoredOn,
    extras: Extras,
    checks: Checks,
) -> dict[str, ArtefactMetrics]:
    """Writes, verifies and times every model in one format; returns the metrics by model."""
    verified, calls = {}, {}
    several = isinstance(test.images, Mapping)  # which the profiler doesn't take
    for job in jobs:
        path, label = _write(job, format, root, extras), f"The {job.name}'s {format}"
        artefact = _load(path, format, threads=checks.threads)
        verified[job.name] = verify_artefact(
            artefact,
            path,
            name=label,
            test=test,
            expected=job.expected,
            tolerance=_tolerance(format, checks),
        )
        if job.name == STUDENT:
            for outputs, whom in job.references(format):
                against = {"whom": whom, "expected": outputs, "max_drop": checks.max_accuracy_drop}
                check_score(verified[job.name], format, name=label, test=test, **against)
        calls[job.name] = artefact.bind(each(lambda array: array[:1], test.images))
    latencies = time_interleaved(calls, rounds=checks.rounds, warmup=checks.warmup)
    models = {} if format == "saved_model" else {job.name: job.model for job in jobs}
    return {
        name: dataclasses.replace(
            metrics,
            latency_ms=latencies[name].median_ms,
            latency_spread_ms=latencies[name].spread_ms,
            **(
                _inside(artefact_path(root, format, model=name), models[name], checks, several=several)
                if name in models
                else {}
            ),
        )
        for name, metrics in verified.items()
    }


def _tolerance(format: str, checks: Checks) -> float | None:
    own = TOLERANCES.get(format)
    return own if own is None or checks.max_difference is None else checks.max_difference


def _inside(path: Path, model: keras.Model, checks: Checks, *, several: bool) -> dict[str, Any]:
    """What operators and layers of a `.tflite` file take; a file with several inputs isn't profiled."""
    found = None if several else profile_file(path, threads=checks.threads, timeout=_PROFILE_SECONDS)
    calls = () if found is None else found.calls
    operators = None if found is None else list(found.operators)
    return {"operators": operators, "layers": list(layers_of_file(path, model, calls))}


def _write(job: Job, format: str, root: Path, extras: Extras) -> Path:
    """Writes one artefact; returns its file or folder."""
    path, metadata = artefact_path(root, format, model=job.name), extras.metadata.get(job.name)
    if format == "saved_model":
        return write_saved_model(job.model, path, metadata=metadata)
    source = job.source(format)
    frozen = root / "frozen" / f"{job.name}_{id(source)}"  # one for all formats that are converted from it
    if not frozen.is_dir():
        write_frozen(source, frozen)
    return write_tflite(frozen, path, format=format, calibration=extras.calibration, metadata=metadata)


def _load(path: Path, format: str, *, threads: int) -> LoadedSavedModel | TFLiteModel:
    """Loads an artefact the way its users do."""
    return LoadedSavedModel(path) if format == "saved_model" else TFLiteModel(path, num_threads=threads)


def _by_model(measured: Mapping[str, Mapping[str, ArtefactMetrics]]) -> dict:
    """Turns format -> model -> metrics into the student's formats, with every other model nested under its name."""
    result: dict = {}
    for format, by_name in measured.items():
        for name, metrics in by_name.items():
            place = result if name == STUDENT else result.setdefault(name, {})
            place[format] = dataclasses.asdict(metrics)
    return result


def _check_arguments(models: Mapping[str, keras.Model], out_dir: Path, formats: Sequence[str], extras: Extras) -> None:
    """Rejects unknown formats, missing inputs of a format, names that collide, and a file in place of the folder."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(f"`formats` must name some of {', '.join(FORMATS)}. Received: {', '.join(formats) or '-'}.")
    if STUDENT not in models:
        raise UserError(f"`models` must have an entry {STUDENT!r}. Received: {', '.join(models) or '-'}.")
    for name in models:
        if name in FORMATS or not re.fullmatch(r"[\w-]+", name):
            raise UserError(
                "`models`: a name becomes a folder. Expected letters, digits, _ and -, and no name of a format. "
                f"Received: {name!r}."
            )
    if set(formats) & set(INTEGER_FORMATS):
        check_calibration(extras.calibration)
    lacking = [name for name in models if name not in extras.quantised]
    if "qat_int8" in formats and lacking:
        raise UserError(f"`quantised` must hold a network for each model in qat_int8. Missing: {', '.join(lacking)}.")
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"`out_dir` must be a folder. Received: {out_dir}, which is a file.")


def _check_alike(calibration: Arrays | None, images: Arrays, formats: Sequence[str]) -> None:
    """Rejects calibration images whose type isn't the test images': ranges and the file's input would be wrong."""
    if not set(formats) & set(INTEGER_FORMATS):
        return
    for one, other in zip(listed(calibration), listed(images), strict=True):
        if one.dtype != np.asarray(other).dtype:
            raise UserError(
                f"`calibration` must be {np.asarray(other).dtype}, like the test images. Received: {one.dtype}."
            )
