"""Makes a shape for the budget without a search, as a baseline for the shape found by a search.

Examples:
    python -m trainers.baseline --kind=uniform --run_dir=runs/uniform --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.baseline --kind=l1 --run_dir=runs/l1 --teacher_from=runs/mine --budget=macs:0.5
    python -m trainers.distill --run_dir=runs/uniform --teacher_from=runs/mine
"""

from __future__ import annotations

from tas_tf.cli.command import run, start
from tas_tf.cli.wording import command_line
from tas_tf.pipeline.baseline_shapes import BaselineStep
from tas_tf.pipeline.steps import refuse_shape
from tas_tf.settings import require


def main() -> None:
    """Makes the shape that the flags describe and writes it to the run folder."""
    workspace, parsed = start()
    kind = require(parsed.config.baseline, "kind")
    refuse_shape(parsed.config)
    for one in workspace.at_budgets():
        step = BaselineStep(one, kind)
        step.run()
        step.show()
    workspace.say(f"Next: {command_line('distill')} with the same flags.")


if __name__ == "__main__":
    run(main)
