"""What makes a result stale, and what doesn't."""

import json
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from trainers.session import Session
from trainers.steps import export_step, is_up_to_date, search_step, student_step, teacher_step


@pytest.fixture
def states(interrupted, finished):
    """Statuses of the steps of the finished run under further flags."""

    def ask(*arguments: str) -> dict[str, str]:
        with flagsaver.flagsaver():
            for name in flags.FLAGS:
                flags.FLAGS[name].present = 0
            flags.FLAGS(["command", f"--run_dir={finished}", *interrupted.flags, *arguments])
            session = Session()
            steps = {
                "teacher": teacher_step(session),
                "search": search_step(session),
                "student": student_step(session, kd=True),
                "export": export_step(session, session.rival_students(["uniform"]), ["saved_model", "fp32"], {}),
            }
            return {name: step.status() for name, step in steps.items() if step.status() != "fresh"}

    return ask


def test_everything_is_fresh(states):
    assert states() == {}


@pytest.mark.parametrize(
    ("change", "stale"),
    {
        "--seed=1": {"teacher", "search", "student", "export"},
        "--dataset=folder:x": {"teacher", "search", "student", "export"},
        "--flip": {"teacher", "search", "student"},
        "--batch_size=16": {"search", "student"},  # the teacher was taken, not trained
        "--teacher_epochs=5": set(),
        "--search_epochs=5": {"search"},
        "--arch_betas=0.5,0.99": {"search"},
        "--budget=macs:0.4": {"search"},
        "--axes=width": {"search"},
        "--kd_alpha=0.5": {"student"},
        "--inherit=teacher": {"student"},
        "--threads=2": {"export"},
        "--test_limit=3": {"export"},
        "--progress=bar": set(),
        "--rivals=random": set(),
        "--strategy=one_device": set(),
        "--data_dir=elsewhere": set(),
        "--inherit=none": set(),  # what `auto` comes to
    }.items(),
)
def test_each_flag_makes_stale_what_depends_on_it(states, change, stale):
    assert states(change) == dict.fromkeys(stale, "stale")


def test_files_count_by_content(states, finished, interrupted, tmp_path):
    (tmp_path / "renamed.keras").write_bytes(Path(interrupted.flags[0].split("=")[1]).read_bytes())
    assert states(f"--model={tmp_path}/renamed.keras") == {}
    path = finished / "search/shape.json"
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same shape, other bytes
    assert states() == {"student": "stale"}


def test_a_lost_artefact_is_made_again(states, finished):
    (finished / "export/fp32.tflite").unlink()
    assert states() == {"export": "unfinished"}


def test_overwrite_means_another_thing_to_the_pipeline(finished, interrupted):
    with flagsaver.flagsaver():
        flags.FLAGS(["command", f"--run_dir={finished}", *interrupted.flags, "--overwrite"])
        single, pipeline = Session(), Session(keeps_what_is_up_to_date=True)
        assert not is_up_to_date(single, search_step(single))
        assert is_up_to_date(pipeline, search_step(pipeline))
