"""What `--dry_run` counts."""

import re

from tas_tf.data.task import Task
from trainers import pipeline


def test_iterations_and_states(command, interrupted):
    outcome = command(
        pipeline, f"--run_dir={interrupted.path}", *interrupted.flags, "--dry_run", "--rivals=uniform,full_kd"
    )
    assert outcome.code == 0, outcome
    rows = {
        cells[0]: cells[1:]
        for line in outcome.out.splitlines()
        if len(cells := [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]) == 5
    }
    task = Task.load("digits", train_limit=200)
    plain, halves = task.training(32)[1], task.searching(32)[1]
    assert rows["search"][:3] == ["up to date", "1", str(halves)]
    assert rows["student"][:3] == ["up to date", "1", str(plain)]
    assert rows["rival uniform"][0] == "up to date"
    assert rows["rival full_kd"][:3] == ["runs", "1", str(plain)]
    assert rows["teacher"][0] == "up to date"
    assert re.search(r"Unpruned: [\d,]+ MACs\. Budget: [\d,]+ macs\.", outcome.out)
