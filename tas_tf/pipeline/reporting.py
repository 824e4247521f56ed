"""Collects the measurements of a run into report.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tas_tf import workers
from tas_tf.deploy.artefacts import artefact_path, files_of
from tas_tf.deploy.converters import CONVERTERS
from tas_tf.deploy.described import describe_file
from tas_tf.deploy.settings import INTEGER_FORMATS
from tas_tf.errors import UserError
from tas_tf.extras import explain_missing
from tas_tf.files import write_json
from tas_tf.pipeline.behaviour import BehaviourStep, read_behaviour
from tas_tf.pipeline.device_check import device_latency, is_for_device
from tas_tf.pipeline.logged_results import log_results
from tas_tf.pipeline.steps import PipelineStep
from tas_tf.replacing import replace_together, scratch_folder
from tas_tf.report.comparison import make_rows, print_comparison
from tas_tf.report.page import render_comparison, render_html
from tas_tf.report.report import build_report
from tas_tf.report.show import print_table
from tas_tf.runs.records import read_result
from tas_tf.runs.run import Run
from tas_tf.runs.workspace import Workspace
from tas_tf.space.summary import summarise_shape


def show_report(workspace: Workspace, rivals: Sequence[str] | None = None) -> dict[str, Any]:
    """Writes the report of a run, see `report_run`, prints its table and returns it."""
    report = workers.once(lambda: report_run(workspace, rivals))
    print_table(report, console=workspace.shared.console)
    return report


@workers.on_chief
def show_budgets(workspace: Workspace) -> None:
    """Compares the students of a run's budgets in a table and, if the extra `report` is installed, on a page.

    Their rivals stand beside them. Budgets without a student are left out. A run with a single budget has neither
    table nor page.
    """
    runs = [one.config for one in workspace.at_budgets()]
    trained = [config for config in runs if config.run.metrics("student").exists()]
    if len(runs) == 1 or not trained:
        return
    named = {}
    for config in trained:
        named[str(config.budget)] = [config.run]
        named |= {f"{config.budget}, {name}": [config.rival(name).run] for name in config.trained_rivals}
    rows = make_rows(named, workspace.config.teacher_run)
    workspace.shared.console.rule("all budgets", align="left")
    print_comparison(rows, workspace.shared.console)
    page = workspace.config.run.path / "budgets.html"
    if explain_missing("report") is None:
        workspace.say(f"page: {render_comparison(rows, page, heading='All budgets')}", markup=False)
    elif page.exists():
        workspace.say(f"{page} is out of date.", markup=False)


def by_budget(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reports of a run's budgets as one object: by budget, or the report itself if there is only one."""
    return reports[0] if len(reports) == 1 else {report["budget"]: report for report in reports}


def report_run(workspace: Workspace, rivals: Sequence[str] | None = None) -> dict[str, Any]:
    """Writes the report of a run: report.json and, if the extra `report` is installed, the page report.html.

    They and the results for TensorBoard replace those of an earlier report all at once.

    Args:
        workspace: The run.
        rivals: Names of the rivals to compare with; by default all that have been trained.

    Returns:
        The content of `report.json`.

    Raises:
        UserError: The run has no measurements yet.
    """
    no_page = explain_missing("report")
    config = workspace.config
    made_by = workspace.shared.made_by(config.run)
    shown = {name: config.rival(name).run for name in (config.trained_rivals if rivals is None else rivals)}
    behaviour = read_behaviour(config)
    report = build_report(
        teacher=_read(config.teacher_run.metrics("teacher")),
        student=_read(config.run.metrics("student")),
        search=_search_metrics(workspace),
        export=_read(config.run.export_dir / "metrics.json"),
        latency=device_latency(workspace) if is_for_device(config) else _read(config.run.latency_json),
        rivals={name: metrics for name, other in shown.items() if (metrics := _read(other.metrics("student")))},
        qat=_qat_metrics(workspace, shown),
        shape=_shape_summary(workspace),
        history=(_read(config.run.metrics("search")) or {}).get("history"),
        behaviour=behaviour,
        deploy=_deployable(config.run),
        budget=str(config.budget),
        seed=config.data.seed,
        settings=made_by.settings,
        command=made_by.command,
        files=_files(config.run, page=no_page is None),
    )
    if not any(report[name].get(report["metric"]) is not None for name in ("teacher", "student")):
        raise UserError(f"`run_dir`: nothing has been measured in {config.run.path} yet.")
    logs = config.run.logs("results")
    written = [config.run.report_json, logs, *([config.run.report_html] if no_page is None else [])]
    with scratch_folder(config.run.path) as scratch:
        made = {path: scratch / path.relative_to(config.run.path) for path in written}
        write_json(made[config.run.report_json], report)
        if no_page is None:
            render_html(report, made[config.run.report_html], behaviour)
        log_results(workspace, report, behaviour, made[logs])
        replace_together(scratch, [path.relative_to(scratch) for path in made.values()])
    if no_page is not None:
        old = f" {config.run.report_html} is out of date." if config.run.report_html.exists() else ""
        # Without markup, since `[report]` would be taken for a style.
        workspace.say(f"{no_page} {config.run.report_json} has the same figures.{old}", markup=False)
    return report


def _read(path: Path) -> dict[str, Any] | None:
    return read_result(path) if path.exists() else None


def _qat_metrics(workspace: Workspace, rivals: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """Metrics of fine-tuning for 8 bits by network; empty if the export has no such files."""
    config = workspace.config
    if "qat_int8" not in (_read(config.run.export_dir / "metrics.json") or {}):
        return {}
    paths = {
        "student": config.run.metrics("qat_student"),
        "teacher": config.outermost.run.metrics("qat_teacher"),
        **{name: other.metrics("qat_student") for name, other in rivals.items()},
    }
    return {name: metrics for name, path in paths.items() if (metrics := _read(path))}


def _search_metrics(workspace: Workspace) -> dict[str, Any] | None:
    """Metrics of the search without its history, with warnings in the user's terms."""
    found = _read(workspace.config.run.metrics("search"))
    if found is None:
        return None
    wording = workspace.shared.wording
    told = {"warnings": [wording(text, "search") for text in found["warnings"]]} if "warnings" in found else {}
    return {**{name: value for name, value in found.items() if name != "history"}, **told}


def _shape_summary(workspace: Workspace) -> dict[str, Any] | None:
    config = workspace.config
    paths = config.teacher_run.teacher_model, config.shape_path
    if not all(path.exists() for path in paths):
        return None
    space = workspace.space_of(workspace.load(paths[0]))
    return summarise_shape(space, workspace.load_shape(space))


def _deployable(run: Run) -> dict[str, dict[str, Any]]:
    """The student's TFLite files by format, described for the programs that run them."""
    paths = {format: artefact_path(run.export_dir, format) for format in CONVERTERS}
    return {
        format: {"path": str(path), **describe_file(path)}
        for format, path in paths.items()
        if path.exists() and run.metrics("export").exists()
    }


def _files(run_folder: Run, *, page: bool) -> dict[str, str]:
    """Paths of the run's files by label; `page` tells whether report.html will be written."""
    files = {
        "student": run_folder.student_model,
        "SavedModel": run_folder.export_dir / "saved_model",
        **{f"TFLite {format}": artefact_path(run_folder.export_dir, format) for format in CONVERTERS},
        **{f"C++ array {format}": files_of(run_folder.export_dir, format)[1] for format in INTEGER_FORMATS},
        **({"report": run_folder.report_html} if page else {}),
        "TensorBoard logs": run_folder.path / "logs",
    }
    return {label: str(path) for label, path in files.items() if path.exists() or path == run_folder.report_html}


class ReportStep(PipelineStep):
    """Writes and prints the report; this step always runs.

    Args:
        workspace: The run.
        rivals: Names of the rivals to compare with.
        label: Name of the step for the user.
    """

    kind = "report"

    def __init__(self, workspace: Workspace, rivals: Sequence[str], label: str | None = None) -> None:
        super().__init__(workspace, label)
        self._rivals = rivals
        self.report: dict[str, Any] = {}

    def run(self) -> bool:
        """Compares the answers of teacher and student, writes the report and prints its table."""
        BehaviourStep(self.workspace).run()
        self.report = show_report(self.workspace, self._rivals)
        return True
