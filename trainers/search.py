"""Finds the widths and depths of the student within a budget: by a race, or by the search of the paper.

A race starts from the weights of a teacher, which must be there: run the command `teacher` with the same flags before.

Examples:
    python -m trainers.search --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=macs:0.5
    python -m trainers.search --flagfile=flags/cifar100.cfg
    python -m trainers.search --run_dir=runs/mine --teacher_from=runs/other --budget=macs:0.4
    tensorboard --logdir=runs/mine/logs
"""

from __future__ import annotations

from tas_tf.cli.command import planned, run, start
from tas_tf.cli.wording import command_line
from tas_tf.pipeline.whole import shape_steps


def main() -> None:
    """Runs the race or the search that the flags describe, and names the next command."""
    workspace, parsed = start()
    steps = shape_steps(workspace)
    if planned(workspace, parsed, steps):
        return
    states = []
    for step in steps:
        done = step.run()
        if not done:
            step.show()
        states.append(f"{step.workspace.config.run.search_shape} is {'ready' if done else 'up to date'}.")
    first = ""
    if not workspace.config.teacher_run.teacher_model.exists():
        first = f" (first {command_line('teacher')}: there is no teacher yet)"
    workspace.say(f"{' '.join(states)} Next: {command_line('distill')} with the same flags{first}.")


if __name__ == "__main__":
    run(main)
