"""Runs all steps: teacher, search, student, rivals, export and report. Steps that are up to date are skipped.

Examples:
    python -m trainers.pipeline --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
"""

from __future__ import annotations

from tas_tf.cli.command import planned, run, start
from tas_tf.pipeline.whole import pipeline_steps, run_pipeline

COMMAND = "pipeline"


def main() -> None:
    """Runs the whole pipeline that the flags describe."""
    workspace, parsed = start(whole=True, plans=True)
    steps = pipeline_steps(workspace)
    if not planned(workspace, parsed, steps):
        run_pipeline(workspace, steps)


if __name__ == "__main__":
    run(main)
