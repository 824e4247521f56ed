"""Runs all steps: teacher, search, student, rivals, export and report. Steps that are up to date are skipped.

Examples:
    python -m trainers.pipeline --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
    python -m trainers.pipeline --run_dir=runs/mine --model=resnet20 --dataset=digits --budget=macs:0.5 --time=20m
    python -m trainers.pipeline --run_dir=runs/fast --model=mine.keras --dataset=folder:photos --budget=latency:0.5
    python -m trainers.pipeline --run_dir=runs/sizes --model=sizes.keras --dataset=csv:photos/labels.csv --image_size=96
"""

from __future__ import annotations

from typing import Any

from tas_tf import workers
from tas_tf.cli.command import planned, run, start
from tas_tf.cli.options import epochs_choose_recipe
from tas_tf.pipeline.plan import check_replaceable
from tas_tf.pipeline.timing import fit_into_time
from tas_tf.pipeline.whole import check_before, pipeline_steps, run_pipeline
from tas_tf.runs.schedule import save_schedule


def main() -> dict[str, Any] | None:
    """Runs the whole pipeline that the flags describe; returns its report."""
    workspace, parsed = start(whole=True)
    chosen_by = {"chosen_by": "`search.epochs`"} if epochs_choose_recipe() else {}
    workspace, schedule = fit_into_time(workspace, **chosen_by)
    steps = pipeline_steps(workspace)
    workers.once(lambda: check_before(workspace, steps))
    if planned(workspace, parsed, steps, schedule):
        return None
    if schedule is not None:
        check_replaceable(steps)  # before the plan of an earlier call is lost
        save_schedule(workspace.config, schedule)
    return run_pipeline(workspace, steps)


if __name__ == "__main__":
    run(main)
