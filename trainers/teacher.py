"""Trains the unpruned network, the teacher, or takes over a trained one.

Examples:
    python -m trainers.teacher --flagfile=flags/cifar100.cfg
    python -m trainers.teacher --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --image_size=96
"""

from __future__ import annotations

from tas_tf.cli.command import planned, run, start
from tas_tf.cli.wording import command_line
from tas_tf.pipeline.training import TeacherStep
from tas_tf.report.scores import told
from tas_tf.runs.records import read_result


def main() -> None:
    """Makes the teacher of the run that the flags name."""
    workspace, parsed = start()
    step = TeacherStep(workspace)
    if planned(workspace, parsed, [step]):
        return
    state = "" if step.run() else " is up to date"
    run_folder = workspace.config.run
    metrics = read_result(run_folder.metrics("teacher"))
    workspace.say(
        f"{run_folder.teacher_model}{state}: test {told(metrics)}, {metrics['macs']:,} MACs. "
        f"Next: {command_line('search')} with the same flags."
    )


if __name__ == "__main__":
    run(main)
