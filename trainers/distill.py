"""Trains the student, a network of the shape found, on the teacher's outputs and the labels, or on labels alone.

Examples:
    python -m trainers.distill --flagfile=flags/cifar100.cfg
    python -m trainers.distill --run_dir=runs/mine --teacher_from=runs/other --shape=shape.json --nokd
"""

from __future__ import annotations

from tas_tf.cli.command import planned, run, start
from tas_tf.cli.wording import command_line
from tas_tf.pipeline.training import StudentStep
from tas_tf.report.scores import told
from tas_tf.runs.records import read_result


def main() -> None:
    """Trains the student of the run that the flags name."""
    workspace, parsed = start()
    if planned(workspace, parsed, [StudentStep(workspace)]):
        return
    for one in workspace.at_budgets():
        state = "" if StudentStep(one).run() else " is up to date"
        run_folder = one.config.run
        metrics = read_result(run_folder.metrics("student"))
        one.say(
            f"{run_folder.student_model}{state}: test {told(metrics)}, {metrics['macs']:,} MACs, "
            f"{metrics['params']:,} parameters. Next: {command_line('export')} with the same flags."
        )
        one.free_memory()


if __name__ == "__main__":
    run(main)
