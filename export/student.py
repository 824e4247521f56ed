"""Writes, checks and times SavedModel and TFLite files of the student, and of the teacher for comparison.

Examples:
    python -m export.student --run_dir=runs/digits
    python -m export.student --run_dir=runs/mine --dataset=cifar10 --formats=fp32 --threads=2 --preprocessing_inside
"""

from __future__ import annotations

from typing import Any

from tas_tf.cli.command import run, start
from tas_tf.pipeline.behaviour import BehaviourStep
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.pipeline.reporting import by_budget, show_budgets, show_report


def main() -> dict[str, Any]:
    """Exports the student of the run that the flags name; returns the report."""
    workspace, _ = start(earlier=True)
    reports = []
    for one in workspace.at_budgets():
        if not ExportStep(one).run():
            one.say(f"{one.config.run.export_dir} is up to date.")
        BehaviourStep(one).run_if_possible()
        reports.append(show_report(one))
    show_budgets(workspace)
    return by_budget(reports)


if __name__ == "__main__":
    run(main)
