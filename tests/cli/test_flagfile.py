"""Flags that a run keeps beside its results, and what a run takes from where."""

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags

from tas_tf.cli.command import start
from tas_tf.cli.flagfile import keep_settings, restore_flags
from tas_tf.cli.options import FLAGS, parse
from tas_tf.errors import UserError
from tas_tf.runs.run import Run
from tas_tf.runs.workspace import Workspace
from tests.commands import fresh_flags


@pytest.fixture
def set_flags():
    """Sets flags as a command would, until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(fresh_flags(*arguments))


def open_workspace() -> Workspace:
    workspace, _ = start()
    return workspace


def keep(workspace: Workspace, *names: str) -> None:
    workspace.config.run.prepare()
    keep_settings(workspace, names)


def lines(run: Path) -> set[str]:
    return set((run / "flags.cfg").read_text().split())


def values() -> dict:
    return {name: flags.FLAGS[name].value for name in FLAGS}


def test_kept_flags_are_a_flagfile(set_flags, tmp_path):
    set_flags(
        f"--run_dir={tmp_path}/run", "--model=resnet8", "--flip", "--rivals=random,uniform", "--overwrite", "--lr=0.3"
    )
    workspace = open_workspace()
    before = values()  # with the defaults of the recipe
    keep(workspace)
    found = lines(tmp_path / "run")
    assert {"--model=resnet8", "--flip", "--rivals=random,uniform", "--lr=0.3", f"--run_dir={tmp_path}/run"} <= found
    assert "--overwrite" not in found
    set_flags(f"--flagfile={tmp_path}/run/flags.cfg")
    # Resizing and preprocessing are kept as they were found.
    assert values() == {**before, "overwrite": False, "resize": "squash", "preprocess": "standardise"}


def test_given_flags_win_over_the_runs(set_flags, tmp_path):
    run = Run(tmp_path)
    run.flags_cfg.write_text("--run_dir=elsewhere\n--lr=0.3\n--flip\n--nokd\n--seed=4\n--rivals=random\n")
    set_flags(f"--run_dir={tmp_path}", "--lr=0.2", "--kd")
    restore_flags(run)
    config = parse().config
    assert (config.student.lr, config.data.flip, config.kd) == (0.2, True, True)
    assert (config.search.seed, config.rivals) == (4, ("random",))
    assert config.run_dir == str(tmp_path)


def test_an_earlier_run_is_seeded_and_placed_as_it_was(set_flags, tmp_path):
    Run(tmp_path).flags_cfg.write_text(f"--seed=4\n--teacher_from={tmp_path}/other\n")
    set_flags(f"--run_dir={tmp_path}")
    workspace, _ = start(earlier=True)
    assert workspace.config.student.seed == workspace.config.data.seed == 4
    assert workspace.config.teacher_run.path == tmp_path / "other"


def test_a_single_step_changes_the_flags_it_uses_alone(set_flags, tmp_path):
    set_flags(f"--run_dir={tmp_path}", "--model=resnet8", "--budget=macs:0.3", "--teacher_epochs=7")
    keep(open_workspace(), "network.model", "teacher.epochs", "budget")
    set_flags(f"--run_dir={tmp_path}", "--search_epochs=9")
    keep(open_workspace(), "budget", "search.epochs")
    found = lines(tmp_path)
    assert {"--model=resnet8", "--teacher_epochs=7", "--search_epochs=9", "--budget=macs:0.5"} <= found
    assert "--budget=macs:0.3" not in found


def test_a_table_of_latencies_has_an_absolute_path(set_flags, tmp_path, monkeypatch):
    """Later commands may run in another folder."""
    monkeypatch.chdir(tmp_path)
    set_flags(f"--run_dir={tmp_path}/run", "--model=resnet8", "--latency_from=runs/../latency.json")
    keep(open_workspace())
    assert f"--latency_from={tmp_path}/latency.json" in lines(tmp_path / "run")


def test_a_rival_has_a_folder_and_a_shape_of_its_own(set_flags, tmp_path):
    set_flags(f"--run_dir={tmp_path}", "--shape=given.json", "--model=resnet8")
    workspace = open_workspace()
    other = workspace.rival("random")
    assert workspace.config.shape_path == Path("given.json")
    assert other.config.shape_path == tmp_path / "rivals/random/search/shape.json"
    assert other.config.teacher_run.path == tmp_path
    assert other.task is workspace.task
    keep(other)
    found = lines(tmp_path / "rivals/random")
    assert f"--teacher_from={tmp_path}" in found
    assert not [line for line in found if line.startswith("--shape")]
    keep(workspace.rival("no_kd"))
    assert {"--nokd", "--shape=given.json"} <= lines(tmp_path / "rivals/no_kd")


def test_what_is_missing_is_named(set_flags, tmp_path):
    set_flags(f"--run_dir={tmp_path}")
    workspace = open_workspace()
    with pytest.raises(UserError, match=r"`run_dir`: there is no teacher"):
        workspace.load_teacher()
    with pytest.raises(UserError, match=r"`shape`: there is no .*shape\.json"):
        workspace.require_shape()
    with pytest.raises(UserError, match="`model` is needed"):
        workspace.unpruned_network()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_teacher_computes_as_the_flag_says(set_flags, tmp_path, trained_tiny, precision):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher/model.keras").write_bytes(trained_tiny.read_bytes())
    set_flags(f"--run_dir={tmp_path}", f"--precision={precision}")
    teacher = open_workspace().load_teacher()
    assert {layer.dtype_policy.name for layer in teacher.layers if layer.weights} == {precision}
    weights = keras.models.load_model(trained_tiny).get_weights()
    for one, other in zip(teacher.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    keras.mixed_precision.set_global_policy("float32")
