"""Writes, checks and times what gets deployed: SavedModel and TFLite of the student, and of the teacher to compare.

Examples:
    python -m export.student --run_dir=runs/digits
    python -m export.student --run_dir=runs/mine --dataset=cifar10 --formats=fp32 --threads=2 --preprocessing_inside
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trainers  # noqa: F401 - first of all: it loads TensorFlow quietly

# isort: split
import keras
from rich.console import Console

from tas_tf.data.source import StreamedSource
from tas_tf.deploy.artefacts import FORMATS, Checks, export_models
from tas_tf.deploy.jobs import Extras
from tas_tf.deploy.tflite import INTEGER_FORMATS
from tas_tf.errors import UserError
from tas_tf.qat.saving import load_network
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.zoo.loading import load_file
from trainers import options
from trainers.command import run
from trainers.file_metadata import file_metadata, layers_inside
from trainers.quantise import QAT_FORMAT, run_qat, settle_formats
from trainers.quiet import without_notes
from trainers.report import report_run
from trainers.session import Session
from trainers.steps import export_step, is_up_to_date

_STREAMED_TEST_LIMIT = 5_000


def main() -> None:
    """Exports the student of the run that the flags name."""
    session = Session.of_earlier_run()
    options.refuse(options.DRY_RUN)
    for one in session.at_budgets():
        if not run_export(one):
            Console().print(f"{one.run.export_dir} is up to date.", highlight=False, soft_wrap=True)
        report_run(one)


def run_export(session: Session, rivals: Sequence[str] | None = None) -> bool:
    """Exports unless it is done; whether anything was done.

    Args:
        session: The run.
        rivals: Those to export and time beside the student; all that are there unless given.

    Raises:
        UserError: There is no student, an argument is off, or a file computes something else than the student.
    """
    if not session.run.student_model.exists():
        raise UserError(
            f"`run_dir`: there is no student, {session.run.student_model}. Run `python -m trainers.distill` first."
        )
    others = session.rival_students(rivals)
    with without_notes():
        formats = settle_formats(session, export_formats(), list(others))
    quantised = run_qat(session, list(others)) if QAT_FORMAT in formats else {}
    shapes = shape_files(session, list(others))
    step = export_step(session, others, formats, quantised=quantised, shapes=shapes)
    if is_up_to_date(session, step):
        return False
    inside = options.PREPROCESSING_INSIDE.value
    images, labels = session.task.test_arrays(_test_limit(session), raw=inside)
    files = {"student": session.run.student_model, "teacher": session.require_teacher(), **others}
    models = {name: load_file(path) for name, path in files.items()}
    extras = _extras(session, models, formats, quantised, shapes)
    with without_notes(), step.replacing():
        export_models(
            models,
            session.run.export_dir,
            images=images,
            labels=labels,
            formats=formats,
            preprocessing_layers=layers_inside(session.task),
            extras=extras,
            checks=Checks(
                tolerance=options.EXPORT_TOLERANCE.value,
                max_accuracy_drop=options.MAX_ACCURACY_DROP.value,
                threads=options.THREADS.value,
                rounds=options.LATENCY_ROUNDS.value,
                warmup=options.LATENCY_WARMUP.value,
            ),
            progress=None if options.PROGRESS.value == "none" else lambda line: print(f"export: {line}", flush=True),
        )
    session.write_flags(step.settings)
    return True


def _extras(
    session: Session,
    models: Mapping[str, keras.Model],
    formats: Sequence[str],
    quantised: Mapping[str, Path],
    shapes: Mapping[str, Path],
) -> Extras:
    """What formats need besides the models."""
    calibration = None
    if set(formats) & set(INTEGER_FORMATS):
        raw = options.PREPROCESSING_INSIDE.value
        calibration = session.task.train_images(options.CALIBRATION_IMAGES.value, raw=raw)
    space = session.space_of(models["teacher"])
    found = {name: _shape(space, path, models[name]) for name, path in shapes.items()}
    found["teacher"] = Shape.full(space).to_json()
    return Extras(
        calibration=calibration,
        quantised={name: load_network(folder, models[name].input_shape[1:]) for name, folder in quantised.items()},
        metadata={name: file_metadata(model, session.task, found.get(name)) for name, model in models.items()},
    )


def shape_files(session: Session, others: Sequence[str]) -> dict[str, Path]:
    """Shapes of student and rivals, where they are still there."""
    paths = {"student": session.shape_path, **{name: session.rival(name).shape_path for name in others}}
    return {name: path for name, path in paths.items() if path.exists()}


def _shape(space: SearchSpace, path: Path, model: keras.Model) -> dict[str, Any]:
    """A network's shape as its file has it.

    Raises:
        UserError: The network is of another shape: there was another search since.
    """
    shape = Shape.load(path)
    expected = build_student(space, shape)
    if [weight.shape for weight in expected.weights] != [weight.shape for weight in model.weights]:
        raise UserError(
            f"`shape`: the student isn't of the shape in {path}. Train it again by `python -m trainers.distill`, or "
            "give the --shape that it was made with."
        )
    return shape.to_json()


def _test_limit(session: Session) -> int | None:
    """As given; data that doesn't fit in memory is never loaded whole."""
    streamed = isinstance(session.task.source, StreamedSource)
    return options.TEST_LIMIT.value or (_STREAMED_TEST_LIMIT if streamed else None)


def export_formats() -> list[str]:
    """What `--formats` names.

    Raises:
        UserError: One is unknown, or there is none.
    """
    formats = options.one_of(options.FORMATS, FORMATS)
    if not formats:
        raise UserError(f"`--formats` must name some of {', '.join(FORMATS)}. Received none.")
    return formats


if __name__ == "__main__":
    run(main)
