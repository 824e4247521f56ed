"""Writes, checks and times what gets deployed: SavedModel and TFLite of the student, and of the teacher to compare.

Examples:
    python -m export.student --run_dir=runs/digits
    python -m export.student --run_dir=runs/mine --dataset=cifar10 --formats=fp32 --threads=2 --preprocessing_inside
"""

from __future__ import annotations

from collections.abc import Sequence

import trainers  # noqa: F401 - first of all: it loads TensorFlow quietly

# isort: split
from rich.console import Console

from export.artefacts import FORMATS, export_models
from tas_tf.data import StreamedSource
from tas_tf.errors import UserError
from tas_tf.zoo.loading import load_file
from trainers import options
from trainers.command import run
from trainers.quiet import without_notes
from trainers.report import report_run
from trainers.session import Session
from trainers.steps import begin, export_step, is_up_to_date

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
    formats, others = export_formats(), session.rival_students(rivals)
    step = export_step(session, others, formats)
    if is_up_to_date(session, step):
        return False
    inside = options.PREPROCESSING_INSIDE.value
    images, labels = session.task.test_arrays(_test_limit(session), raw=inside)
    files = {"student": session.run.student_model, "teacher": session.teacher_run.teacher_model, **others}
    models = {name: load_file(path) for name, path in files.items()}
    begin(session, step)
    with without_notes():
        export_models(
            models,
            session.run.export_dir,
            images=images,
            labels=labels,
            formats=formats,
            preprocessing_layers=session.task.preprocessing.layers() if inside else (),
            threads=options.THREADS.value,
            tolerance=options.EXPORT_TOLERANCE.value,
            progress=None if options.PROGRESS.value == "none" else lambda line: print(f"export: {line}", flush=True),
        )
    step.finish()
    return True


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
