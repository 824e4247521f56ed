"""What makes a result stale, and what doesn't."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tas_tf.cli.command import start
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.pipeline.quantising import QatStep
from tas_tf.pipeline.searched_shapes import SearchStep
from tas_tf.pipeline.steps import RunStep
from tas_tf.pipeline.training import StudentStep, TeacherStep
from tas_tf.runs.run import Run
from tas_tf.runs.workspace import Workspace
from tests.commands import fresh_flags


@pytest.fixture
def workspaces(interrupted, finished):
    """The finished run under further flags."""

    @contextlib.contextmanager
    def under(*arguments: str) -> Iterator[Workspace]:
        with fresh_flags(f"--run_dir={finished}", *interrupted.flags, *arguments):
            yield start()[0]

    return under


@pytest.fixture
def states(workspaces):
    """Statuses of the steps of the finished run under further flags."""

    def ask(*arguments: str) -> dict[str, str]:
        with workspaces(*arguments) as workspace:
            steps = {
                "teacher": TeacherStep(workspace),
                "search": SearchStep(workspace),
                "student": StudentStep(workspace),
                "export": ExportStep(workspace, ["uniform"]),
            }
            found = {name: step.record.status() for name, step in steps.items()}
            return {name: status for name, status in found.items() if status != "fresh"}

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


def test_a_run_from_before_images_could_be_squashed_is_fresh(finished, workspaces, states):
    """Images were always cut. Records, metrics and flag files of then don't say so."""
    flags_cfg = finished / "flags.cfg"
    flags_cfg.write_text("".join(line for line in flags_cfg.read_text().splitlines(True) if "--resize" not in line))
    for path in [*finished.rglob("digest.json"), *finished.rglob("metrics.json")]:
        content = json.loads(path.read_text())
        content.pop("resize", None)
        content.pop("files", None)
        if path.name == "digest.json":
            assert content["settings"].get("data", {}).pop("resize", "squash") == "squash"
            made_from = {name: content[name] for name in ("version", "settings", "inputs")}
            canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
            content["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
        path.write_text(json.dumps(content))
    assert states() == {}
    with workspaces() as workspace:
        assert workspace.config.data.resize == "crop"
    assert "teacher" in states("--resize=squash")


def test_files_count_by_content(states, finished, interrupted, tmp_path):
    (tmp_path / "renamed.keras").write_bytes(Path(interrupted.flags[0].split("=")[1]).read_bytes())
    assert states(f"--model={tmp_path}/renamed.keras") == {}
    path = finished / "search/shape.json"
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same shape, other bytes
    assert states() == {"student": "stale", "export": "stale"}  # whose files carry the shape


def test_a_lost_artefact_is_made_again(states, finished):
    (finished / "export/fp32.tflite").unlink()
    assert states() == {"export": "unfinished"}


def test_overwrite_means_another_thing_to_the_pipeline(workspaces):
    with workspaces("--overwrite") as single:
        assert not SearchStep(single).is_up_to_date
        assert SearchStep(replace(single, keeps_fresh=True)).is_up_to_date


def test_an_earlier_version_s_results_are_made_again(states, finished):
    """They may have been made from settings that were recorded differently."""
    path = finished / "student/digest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1, "digest": "another"}))
    assert states() == {"student": "stale"}


@pytest.fixture
def qat_states(workspaces):
    """Statuses under further flags of two trainings for 8 bits and of an export of both, which are there.

    The student learned from the teacher, and the teacher, as a rival might, from labels alone.
    """

    def steps(workspace: Workspace) -> dict[str, RunStep]:
        untaught = replace(workspace, config=replace(workspace.config, kd=False))
        return {
            "student": QatStep(workspace, "student", "student"),
            "teacher": QatStep(untaught, "teacher", "teacher"),
            "export": ExportStep(workspace, []),
        }

    def ask(*arguments: str) -> set[str]:
        with workspaces("--formats=qat_int8", *arguments) as workspace:
            found = {name: step.record.status() for name, step in steps(workspace).items()}
            assert set(found.values()) <= {"fresh", "stale"}
            return {name for name, status in found.items() if status == "stale"}

    with workspaces("--formats=qat_int8") as workspace:
        for name in ("student", "teacher", "export"):
            step = steps(workspace)[name].record
            with step.replacing() if name == "export" else contextlib.nullcontext(workspace.config.run.path) as folder:
                assert name == "export" or step.begin()
                for output in step.outputs:
                    made = folder / output.relative_to(step.folder if name == "export" else folder)
                    made.parent.mkdir(parents=True, exist_ok=True)
                    made.write_text("made")
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
def test_what_is_done_to_images_is_part_of_the_settings(workspaces, argument, in_export):
    """Training images affect trainings; test images affect the scores of files too."""

    def settings(*arguments: str) -> tuple[dict, dict]:
        with workspaces(*arguments) as workspace:
            steps = TeacherStep(workspace), ExportStep(workspace, [])
            return tuple(dict(step.record.settings["data"]) for step in steps)

    (teacher, export), (changed_teacher, changed_export) = settings(), settings(argument)
    assert changed_teacher != teacher
    assert (changed_export != export) is in_export


def test_images_to_calibrate_with_matter_to_integers_alone(workspaces):
    def settings(*arguments: str) -> dict:
        with workspaces(*arguments) as workspace:
            return dict(ExportStep(workspace, []).record.settings)

    for formats, matters in (("saved_model,fp32,fp16,dynamic", False), ("fp32,int8", True)):
        one, other = (settings(f"--formats={formats}", f"--calibration_images={count}") for count in (50, 60))
        assert (one != other) is matters
