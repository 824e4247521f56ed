"""Flags that a run keeps beside its results, and what a run takes from where."""

from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from trainers.run_flags import restore_flags
from trainers.session import Session

from tas_tf.errors import UserError
from tas_tf.runs.run import Run
from trainers import options


@pytest.fixture
def parse():
    """Sets flags as a command would, until the test ends."""
    with flagsaver.flagsaver():

        def run(*arguments: str) -> None:
            for name in flags.FLAGS:
                flags.FLAGS[name].present = 0
            flags.FLAGS(["command", *map(str, arguments)])

        yield run


def lines(run: Path) -> set[str]:
    return set((run / "flags.cfg").read_text().split())


def test_kept_flags_are_a_flagfile(parse, tmp_path):
    parse(
        f"--run_dir={tmp_path}/run", "--model=resnet8", "--flip", "--rivals=random,uniform", "--overwrite", "--lr=0.3"
    )
    session = Session()
    before = {holder.name: holder.value for group in options.GROUPS.values() for holder in group}
    session.write_flags([])
    found = lines(tmp_path / "run")
    assert {"--model=resnet8", "--flip", "--rivals=random,uniform", "--lr=0.3", f"--run_dir={tmp_path}/run"} <= found
    assert "--overwrite" not in found
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].value = flags.FLAGS[name].default
        parse(f"--flagfile={tmp_path}/run/flags.cfg")
        after = {holder.name: holder.value for group in options.GROUPS.values() for holder in group}
    assert after == {**before, "overwrite": False}


def test_given_flags_win_over_the_runs(parse, tmp_path):
    run = Run(tmp_path)
    run.flags_cfg.write_text("--run_dir=elsewhere\n--lr=0.3\n--flip\n--nokd\n--seed=4\n--rivals=random\n")
    parse(f"--run_dir={tmp_path}", "--lr=0.2", "--kd")
    restore_flags(run)
    assert (options.LEARNING_RATE.value, options.FLIP.value, options.KD.value) == (0.2, True, True)
    assert (options.SEED.value, options.RIVALS.value) == (4, ["random"])
    assert options.RUN_DIR.value == str(tmp_path)


def test_an_earlier_run_is_seeded_and_placed_as_it_was(parse, tmp_path):
    Run(tmp_path).flags_cfg.write_text(f"--seed=4\n--teacher_from={tmp_path}/other\n")
    parse(f"--run_dir={tmp_path}")
    session = Session.of_earlier_run()
    assert session.seed == 4
    assert session.teacher_run.path == tmp_path / "other"


def test_a_single_step_changes_the_flags_it_uses_alone(parse, tmp_path):
    parse(f"--run_dir={tmp_path}", "--model=resnet8", "--budget=macs:0.3", "--teacher_epochs=7")
    Session().write_flags(["model", "teacher_epochs"])
    parse(f"--run_dir={tmp_path}", "--search_epochs=9")
    flags.FLAGS["budget"].value, flags.FLAGS["teacher_epochs"].value = ["macs:0.5"], 300
    Session().write_flags(["budget", "search_epochs"])
    found = lines(tmp_path)
    assert {"--model=resnet8", "--teacher_epochs=7", "--search_epochs=9", "--budget=macs:0.5"} <= found
    assert "--budget=macs:0.3" not in found


def test_a_rival_has_a_folder_and_a_shape_of_its_own(parse, tmp_path):
    parse(f"--run_dir={tmp_path}", "--shape=given.json", "--model=resnet8")
    session = Session()
    other = session.rival("random")
    assert session.shape_path == Path("given.json")
    assert other.shape_path == tmp_path / "rivals/random/search/shape.json"
    assert other.teacher_run.path == tmp_path
    assert other.task is session.task
    other.write_flags([])
    found = lines(tmp_path / "rivals/random")
    assert f"--teacher_from={tmp_path}" in found
    assert not [line for line in found if line.startswith("--shape")]


def test_what_is_missing_is_named(parse, tmp_path):
    parse(f"--run_dir={tmp_path}")
    with pytest.raises(UserError, match=r"`run_dir`: there is no teacher"):
        Session().load_teacher()
    with pytest.raises(UserError, match=r"`shape`: there is no .*shape\.json"):
        Session().require_shape()
    with pytest.raises(UserError, match="`--model` is needed"):
        Session().unpruned_network()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_teacher_computes_as_the_flag_says(parse, interrupted, precision):
    parse(f"--run_dir={interrupted.path}", f"--precision={precision}")
    session = Session()
    teacher = session.load_teacher()
    assert {layer.dtype_policy.name for layer in teacher.layers if layer.weights} == {precision}
    weights = keras.models.load_model(interrupted.path / "teacher/model.keras").get_weights()
    for one, other in zip(teacher.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
