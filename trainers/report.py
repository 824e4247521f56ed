"""Gathers what a run measured into report.json and report.html, and prints the table.

Examples:
    python -m trainers.report --run_dir=runs/digits
    python -m trainers.report --compare runs/seed0/tas runs/seed1/tas runs/seed0/uniform runs/seed1/uniform
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tas_tf.baselines.rivals import RIVALS
from tas_tf.deploy.artefacts import artefact_path
from tas_tf.deploy.tflite import CONVERTERS
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.report.comparison import compare_runs, print_comparison
from tas_tf.report.report import build_report, print_table, render_html, summarise_shape
from tas_tf.runs.run import Run
from tas_tf.space.shape import Shape, dropped_nodes
from tas_tf.zoo.loading import load_file
from trainers import options
from trainers.command import run
from trainers.plan import PIPED_WIDTH
from trainers.session import Session

#: The flag that goes on with arguments left over.
MORE = options.COMPARE


def main() -> None:
    """Reports on the run, or compares the runs, that the flags name."""
    if not options.COMPARE.value:
        first, *others = Session.of_earlier_run().at_budgets()
        for one in (first, *(other for other in others if other.run.metrics("student").exists())):
            report_run(one)
        return
    rows = compare_runs(options.COMPARE.value)
    if options.JSON.value:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        print_comparison(rows, Console(width=None if sys.stdout.isatty() else PIPED_WIDTH))


def report_run(session: Session, rivals: Mapping[str, Run] | None = None) -> dict[str, Any]:
    """Writes the report of a run and prints its table.

    Args:
        session: The run.
        rivals: Runs to set beside it, by name; those inside the run folder unless given.

    Raises:
        UserError: Nothing has been measured yet.
    """
    rivals = _found_rivals(session.run) if rivals is None else rivals
    report = build_report(
        teacher=_read(session.teacher_run.metrics("teacher")),
        student=_read(session.run.metrics("student")),
        search=_without(_read(session.run.metrics("search")), "history"),
        export=_read(session.run.export_dir / "metrics.json"),
        rivals={name: metrics for name, other in rivals.items() if (metrics := _read(other.metrics("student")))},
        qat=_qat_metrics(session, rivals),
        shape=_shape_summary(session),
        history=(_read(session.run.metrics("search")) or {}).get("history"),
        budget=str(session.budget),
        seed=options.SEED.value,
        settings=_settings(session.run),
        command=_command(session.run),
        files=_files(session.run),
    )
    if not any(report[name]["accuracy"] is not None for name in ("teacher", "student")):
        raise UserError(f"`run_dir`: nothing has been measured in {session.run.path} yet.")
    write_json(session.run.report_json, report)
    render_html(report, session.run.report_html)
    if options.JSON.value:
        print(json.dumps(report, indent=2))
    else:
        print_table(report, console=Console(width=None if sys.stdout.isatty() else PIPED_WIDTH))
    return report


def _settings(run_folder: Run) -> dict[str, str]:
    """The flags of a run, as its flag file has them."""
    lines = run_folder.flags_cfg.read_text().splitlines() if run_folder.flags_cfg.exists() else []
    found: dict[str, list[str]] = {}
    for name, separator, value in (line.removeprefix("--").partition("=") for line in lines):
        found.setdefault(name, []).append(value if separator else "yes")
    return {name: ", ".join(values) for name, values in found.items()}


def _command(run_folder: Run) -> str:
    """What makes the run again."""
    given = f"--flagfile={run_folder.flags_cfg}"
    digest = _read(run_folder.search_shape.with_name("digest.json")) or {}
    kind = digest.get("settings", {}).get("kind")
    if "probabilities" in digest.get("inputs", {}):
        # Decoded from the search of the run that it lies in, at RUN/budgets/NAME.
        given = f"--flagfile={Run(run_folder.path.parents[1]).flags_cfg}"
    if kind is None:
        return f"python -m trainers.pipeline {given}"
    return (
        f"python -m trainers.baseline --kind={kind} {given}; python -m trainers.distill {given}; "
        f"python -m export.student {given}"
    )


def _found_rivals(run_folder: Run) -> dict[str, Run]:
    return {
        name: Run(run_folder.path / "rivals" / name) for name in RIVALS if (run_folder.path / "rivals" / name).is_dir()
    }


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _qat_metrics(session: Session, rivals: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """What was measured while networks were trained for 8 bits, of those exported so."""
    if "qat_int8" not in (_read(session.run.export_dir / "metrics.json") or {}):
        return {}
    paths = {
        "student": session.run.metrics("qat_student"),
        "teacher": session.outermost.run.metrics("qat_teacher"),
        **{name: other.metrics("qat_student") for name, other in rivals.items()},
    }
    return {name: metrics for name, path in paths.items() if (metrics := _read(path))}


def _without(metrics: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    return None if metrics is None else {key: value for key, value in metrics.items() if key != name}


def _shape_summary(session: Session) -> dict[str, Any] | None:
    paths = session.teacher_run.teacher_model, session.shape_path
    if not all(path.exists() for path in paths):
        return None
    space = session.space_of(load_file(paths[0]))
    shape = session.load_shape(space)
    dropped, _ = dropped_nodes(space, shape)
    return summarise_shape(
        [{"name": unit.name, "width": unit.width} for unit in space.units],
        [{"name": stage.name, "blocks": stage.blocks} for stage in space.stages],
        Shape.to_json(shape),
        dropped_units=[unit.name for unit in space.units if dropped.issuperset(unit.members)],
    )


def _files(run_folder: Run) -> dict[str, str]:
    files = {
        "student": run_folder.student_model,
        "SavedModel": run_folder.export_dir / "saved_model",
        **{f"TFLite {format}": artefact_path(run_folder.export_dir, format) for format in CONVERTERS},
        "report": run_folder.report_html,
        "TensorBoard logs": run_folder.path / "logs",
    }
    return {label: str(path) for label, path in files.items() if path.exists() or path == run_folder.report_html}


if __name__ == "__main__":
    run(main)
