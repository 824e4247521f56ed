"""Writes, checks and times what gets deployed: SavedModel and TFLite of the student, and of the teacher to compare.

Examples:
    python -m export.student --run_dir=runs/digits
    python -m export.student --run_dir=runs/mine --dataset=cifar10 --formats=fp32 --threads=2 --preprocessing_inside
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from export.artefacts import FORMATS, export_models
from tas_tf.errors import UserError
from tas_tf.zoo.loading import load_file
from trainers import options
from trainers.command import run
from trainers.quiet import without_notes
from trainers.report import report_run
from trainers.session import Session
from trainers.steps import begin, export_step, is_up_to_date


def main() -> None:
    """Exports the student of the run that the flags name."""
    session = Session.of_earlier_run()
    if not run_export(session):
        Console().print(f"{session.run.export_dir} is up to date.", highlight=False)
    report_run(session)


def run_export(session: Session, others: dict[str, Path] | None = None) -> bool:
    """Exports unless it is done; whether anything was done.

    Args:
        session: The run.
        others: Further models to export and time beside the student, files by name.
    """
    if not session.run.student_model.exists():
        raise UserError(
            f"`run_dir`: there is no student, {session.run.student_model}. Run `python -m trainers.distill` first."
        )
    formats = export_formats()
    step = export_step(session, others or {})
    if is_up_to_date(session, step):
        return False
    inside = options.PREPROCESSING_INSIDE.value
    images, labels = session.task.test_arrays(options.TEST_LIMIT.value, raw=inside)
    files = {"student": session.run.student_model, "teacher": session.teacher_run.teacher_model, **(others or {})}
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
