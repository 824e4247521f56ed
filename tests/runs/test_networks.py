"""The data of a run, and what is said of it."""

import dataclasses

from rich.console import Console

from tas_tf.data.settings import DataSettings
from tas_tf.data.task import Task
from tas_tf.runs.config import RunConfig
from tas_tf.runs.networks import RunNetworks
from tas_tf.runs.shared import Shared


def test_the_list_says_what_is_left_out_now(tmp_path):
    run = RunNetworks(RunConfig(run_dir=str(tmp_path), data=DataSettings()), Shared(Console(quiet=True)))
    task = Task.load("digits")
    left_out = (("a.png", "it is no image"), ("b.png", "it is no image"))
    run.shared.tasks[run.config.data] = dataclasses.replace(
        task, source=dataclasses.replace(task.source, left_out=left_out)
    )
    run.list_left_out()
    assert (tmp_path / "left_out.txt").read_text() == "a.png: it is no image\nb.png: it is no image\n"
    run.shared.tasks[run.config.data] = task
    run.list_left_out()
    assert list(tmp_path.iterdir()) == []
