"""Collects the measurements of a run into report.json and report.html, and prints the table.

Examples:
    python -m trainers.report --run_dir=runs/digits
    python -m trainers.report --compare runs/seed0/tas runs/seed1/tas runs/seed0/uniform runs/seed1/uniform
    python -m trainers.report --page=runs/comparison.html --compare runs/seed0/tas runs/seed1/tas
"""

from __future__ import annotations

from typing import Any

from tas_tf.cli.command import make_console, run, start
from tas_tf.cli.options import parse
from tas_tf.errors import UserError
from tas_tf.pipeline.reporting import by_budget, show_budgets, show_report
from tas_tf.report.comparison import compare_runs, print_comparison
from tas_tf.report.page import check_page, render_comparison


def main() -> Any:
    """Reports on the run, or compares the runs, that the flags name; returns the figures."""
    call = parse().call
    if call.page and not call.compare:
        raise UserError(
            "`page` is the page of a comparison. Give the runs to `compare`; a run's own page is report.html."
        )
    if call.page:
        check_page(call.page)
    if call.compare:
        rows = compare_runs(call.compare)
        page = render_comparison(rows, call.page) if call.page else None
        if not call.json:
            console = make_console()
            print_comparison(rows, console)
            if page:
                console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)
        return [row.to_json() for row in rows]
    workspace, _ = start(earlier=True)
    first, *others = workspace.at_budgets()
    finished = [first, *(other for other in others if other.config.run.metrics("student").exists())]
    reports = [show_report(one) for one in finished]
    show_budgets(workspace)
    return by_budget(reports)


if __name__ == "__main__":
    run(main)
