"""What makes a result stale, and what doesn't."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from trainers.session import Session
from trainers.steps import export_step, is_up_to_date, qat_step, search_step, student_step, teacher_step

from export.student import shape_files
from tas_tf.runs.run import Run, Step
from trainers import options


@pytest.fixture
def sessions(interrupted, finished):
    """The finished run under further flags."""

    @contextlib.contextmanager
    def under(*arguments: str) -> Iterator[Session]:
        with flagsaver.flagsaver():
            for name in flags.FLAGS:
                flags.FLAGS[name].present = 0
            flags.FLAGS(["command", f"--run_dir={finished}", *interrupted.flags, *arguments])
            yield Session()

    return under


@pytest.fixture
def states(sessions):
    """Statuses of the steps of the finished run under further flags."""

    def ask(*arguments: str) -> dict[str, str]:
        with sessions(*arguments) as session:
            steps = {
                "teacher": teacher_step(session),
                "search": search_step(session),
                "student": student_step(session, kd=True),
                "export": export_step(
                    session,
                    session.rival_students(["uniform"]),
                    ["saved_model", "fp32"],
                    quantised={},
                    shapes=shape_files(session, ["uniform"]),
                ),
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
    assert states() == {"student": "stale", "export": "stale"}  # whose files carry the shape


def test_a_lost_artefact_is_made_again(states, finished):
    (finished / "export/fp32.tflite").unlink()
    assert states() == {"export": "unfinished"}


def test_overwrite_means_another_thing_to_the_pipeline(finished, interrupted):
    with flagsaver.flagsaver():
        flags.FLAGS(["command", f"--run_dir={finished}", *interrupted.flags, "--overwrite"])
        single, pipeline = Session(), Session(keeps_what_is_up_to_date=True)
        assert not is_up_to_date(single, search_step(single))
        assert is_up_to_date(pipeline, search_step(pipeline))


@pytest.fixture
def qat_states(sessions):
    """Statuses under further flags of two trainings for 8 bits and of an export of both, which are there.

    The student learned from the teacher, and the teacher, as a rival might, from labels alone.
    """

    def steps(session: Session) -> dict[str, Step]:
        quantised = {name: session.run.quantised(name) for name in ("student", "teacher")}
        return {
            "student": qat_step(session, "student", kd=options.KD.value, float_control=options.QAT_FLOAT.value),
            "teacher": qat_step(session, "teacher", kd=False, float_control=False),
            "export": export_step(session, {}, ["qat_int8"], quantised=quantised, shapes={}),
        }

    def ask(*arguments: str) -> set[str]:
        with sessions(*arguments) as session:
            assert {step.status() for step in steps(session).values()} <= {"fresh", "stale"}
            return {name for name, step in steps(session).items() if step.status() == "stale"}

    with sessions() as session:
        for name in ("student", "teacher", "export"):
            step = steps(session)[name]
            with contextlib.nullcontext() if name != "export" else step.replacing():
                assert name == "export" or step.begin()
                for output in step.outputs:
                    output.parent.mkdir(parents=True, exist_ok=True)
                    output.write_text("made")
            if name != "export":
                step.finish()
    return ask


@pytest.mark.parametrize(
    ("change", "stale"),
    {
        "--seed=1": {"student", "teacher", "export"},
        "--train_limit=199": {"student", "teacher", "export"},
        "--pad_crop=1": {"student", "teacher"},
        "--batch_size=16": {"student", "teacher"},
        "--momentum=0.8": {"student", "teacher"},
        "--l2=0": {"student", "teacher"},
        "--qat_epochs=5": {"student", "teacher"},
        "--qat_lr=0.5": {"student", "teacher"},
        "--kd_alpha=0.5": {"student"},  # the other doesn't learn from a teacher
        "--kd_temperature=2": {"student"},
        "--nokd": {"student"},
        "--qat_float": {"student"},
        "--calibration_images=100": {"export"},
        "--test_limit=3": {"export"},
        "--lr=0.7": set(),
        "--student_epochs=5": set(),
        "--search_epochs=5": set(),
        "--budget=macs:0.4": set(),
        "--qat_fallback": set(),
        "--progress=bar": set(),
    }.items(),
)
def test_flags_that_the_training_for_8_bits_depends_on(qat_states, change, stale):
    assert qat_states(change) == stale


def test_networks_that_the_training_for_8_bits_depends_on(qat_states, finished):
    run = Run(finished)
    assert qat_states() == set()
    run.student_model.write_bytes(run.teacher_model.read_bytes())
    assert qat_states() == {"student", "export"}
    run.teacher_model.write_text("another")
    assert qat_states() == {"student", "teacher", "export"}


def test_an_export_depends_on_the_networks_trained_for_8_bits(qat_states, finished):
    Run(finished).quantised("teacher").write_text("another")
    assert qat_states() == {"export"}


@pytest.mark.parametrize(
    ("argument", "in_export"),
    [("--color_jitter=0.4,0.4,0.4,0.2", False), ("--lighting=0.1", False), ("--test_resize=9", True)],
)
def test_what_is_done_to_images_is_part_of_the_settings(sessions, argument, in_export):
    """Unset, these flags don't appear: results from before they existed stay up to date."""

    def settings(*arguments: str) -> tuple[dict, dict]:
        with sessions(*arguments) as session:
            export = export_step(session, {}, ["fp32"], quantised={}, shapes={})
            return dict(teacher_step(session).settings), dict(export.settings)

    name, _, value = argument.removeprefix("--").partition("=")
    (teacher, export), (changed_teacher, changed_export) = settings(), settings(argument)
    assert not {name} & (set(teacher) | set(export))
    assert str(changed_teacher.pop(name)).strip("[]").replace("'", "").replace(" ", "") == value
    assert changed_teacher == teacher
    assert (name in changed_export) is in_export


def test_images_to_calibrate_with_matter_to_integers_alone(sessions):
    def settings(*arguments: str, formats: list[str]) -> dict:
        with sessions(*arguments) as session:
            return dict(export_step(session, {}, formats, quantised={}, shapes={}).settings)

    for formats, matters in ((["saved_model", "fp32", "fp16", "dynamic"], False), (["fp32", "int8"], True)):
        one, other = (settings(f"--calibration_images={count}", formats=formats) for count in (50, 60))
        assert (one != other) is matters
