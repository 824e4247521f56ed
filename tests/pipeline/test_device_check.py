"""The check of a student on the user's own device: the folder for it, and what comes back."""

import dataclasses
from types import SimpleNamespace

import pytest

from tas_tf.cost.budget import Budget
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.latency.settings import LatencySettings
from tas_tf.pipeline.device_check import device_latency, is_for_device, write_device_check
from tas_tf.runs.config import RunConfig

SEARCH = {
    **{"budget_kind": "latency", "budget_latency": 0.5, "latency_full_ms": 1.0, "shape_latency_ratio": 0.49},
    **{"latency_format": "int8", "latency_threads": 4, "latency_device": "a board"},
    "latency_runtime": "ai-edge-litert 2.3.0",
}


class Workspace:
    """A finished run, as far as the check looks at it."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.said = config, []
        self.shared = SimpleNamespace(wording=lambda text, section: text)

    def say(self, text: str, **style: object) -> None:
        self.said.append(text)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    settings = LatencySettings(file_format="int8", threads=4, table="latency.json")
    budgets = tuple(map(Budget.parse, ("latency:0.5ms", "macs:0.3")))
    run = RunConfig(run_dir=str(tmp_path / "run"), latency=settings, budgets=budgets)
    write_json(run.run.metrics("search"), SEARCH)
    for folder, content in (("", b"student"), ("teacher", b"the teacher")):
        (run.run.export_dir / folder).mkdir(parents=True, exist_ok=True)
        (run.run.export_dir / folder / "int8.tflite").write_bytes(content)
    write_json(run.run.metrics("export"), {})
    return Workspace(run)


def measured(workspace: Workspace, **changes: object) -> None:
    """Puts back what the device wrote."""
    folder = workspace.config.run.check_dir
    header = {name: value for name, value in read_json(folder / "shapes.json").items() if name != "files"}
    found = {"share": 0.48, "noise": 0.01, "kept": True, "teacher_ms": 2.0, "student_ms": 0.96}
    found |= {"device": "a board", "runtime": "ai-edge-litert 2.3.0"}
    write_json(folder / "student.json", {**header, **found, **changes})


def test_the_folder_holds_what_the_device_needs(workspace):
    write_device_check(workspace)
    folder = workspace.config.run.check_dir
    assert (folder / "000.tflite").read_bytes() == b"the teacher"
    assert (folder / "001.tflite").read_bytes() == b"student"
    header = read_json(folder / "shapes.json")
    expected = {"format": "int8", "threads": 4, "budget": "latency:500us", "budget_share": 0.5}
    assert {name: header[name] for name in expected} == expected
    assert header["files"] == {"000.tflite": 11, "001.tflite": 7}
    assert {"measure.py", "measure_android.sh"} <= {path.name for path in folder.iterdir()}
    (said,) = workspace.said
    assert said.startswith("latency: the budget is not checked on the device yet: copy ")
    assert "run `python3 measure.py`" in said
    assert device_latency(workspace)["kept"] is None


def test_a_budget_that_is_kept_there(workspace):
    write_device_check(workspace)
    measured(workspace)
    found = device_latency(workspace)
    assert "next" not in found
    expected = {"share": 0.48, "noise": 0.01, "kept": True, "device": "a board", "predicted_share": 0.49}
    assert {name: found[name] for name in expected} == expected
    workspace.said.clear()
    write_device_check(workspace)  # the same student: what came back stays
    assert (device_latency(workspace)["share"], workspace.said) == (0.48, [])


def test_a_budget_that_is_not_kept_names_the_next_command(workspace):
    write_device_check(workspace)
    measured(workspace, share=0.6, kept=False)
    found = device_latency(workspace)
    # 0.99 * 0.5 * 0.49 / 0.6: what was predicted as 0.49 took 0.6.
    assert "run `pipeline` as before, but with" in found["next"]
    assert "with `budget`=latency:0.404 `budget`=macs:0.3 `overwrite`." in found["next"]


def test_a_device_that_is_too_noisy(workspace):
    write_device_check(workspace)
    measured(workspace, kept=None, noise=0.2)
    assert device_latency(workspace)["next"].startswith("the device was too noisy to tell: copy ")


def test_what_another_student_took_is_not_shown(workspace):
    write_device_check(workspace)
    measured(workspace)
    kept = (workspace.config.run.check_dir / "student.json").read_text()
    (workspace.config.run.export_dir / "int8.tflite").write_bytes(b"another")
    write_device_check(workspace)
    assert (workspace.config.run.check_dir / "001.tflite").read_bytes() == b"another"
    assert "share" not in device_latency(workspace)
    (workspace.config.run.check_dir / "student.json").write_text(kept)
    found = device_latency(workspace)
    assert "is of another student" in found["next"]
    assert "share" not in found


@pytest.mark.parametrize("wrong", [{"share": "fast"}, {"share": 0}, {"noise": float("nan")}, {"kept": 7}])
def test_a_damaged_result_is_refused(workspace, wrong):
    write_device_check(workspace)
    measured(workspace, **wrong)
    with pytest.raises(UserError, match=r"student\.json isn't what measure\.py writes: "):
        device_latency(workspace)


def test_a_format_that_was_not_written(workspace):
    (workspace.config.run.export_dir / "int8.tflite").unlink()
    write_device_check(workspace)
    assert workspace.said == ["latency: the student can't be checked on a board, as no file is int8."]
    assert not workspace.config.run.check_dir.exists()


def test_files_of_8_bits_are_timed_alike(workspace):
    for folder in ("", "teacher"):
        (workspace.config.run.export_dir / folder / "int8.tflite").rename(
            workspace.config.run.export_dir / folder / "qat_int8.tflite"
        )
    write_device_check(workspace)
    measured(workspace)
    assert (workspace.config.run.check_dir / "001.tflite").read_bytes() == b"student"
    found = device_latency(workspace)
    assert (found["format"], found["kept"]) == ("qat_int8", True)


def test_what_another_device_took_does_not_count(workspace):
    write_device_check(workspace)
    measured(workspace, device="a laptop")
    found = device_latency(workspace)
    assert (found["kept"], "share" in found) == (None, False)
    assert "student.json is of a laptop, but the budget refers to a board: copy " in found["next"]


@pytest.mark.parametrize("kept", [True, False])
def test_another_runtime_is_told(workspace, kept):
    write_device_check(workspace)
    measured(workspace, runtime="tflite-runtime 2.14.0", kept=kept)
    found = device_latency(workspace)
    assert found["kept"] is kept
    assert "with tflite-runtime 2.14.0, but the budget refers to ai-edge-litert 2.3.0" in found["next"]


def test_a_folder_that_is_not_there_is_exported_first(workspace):
    check = workspace.config.run.check_dir
    assert device_latency(workspace)["next"] == f"run `export` first: {check} doesn't hold this student for the device."
    write_device_check(workspace)
    assert ": copy " in device_latency(workspace)["next"]
    (check / "shapes.json").write_text("{")
    assert "run `export` first" in device_latency(workspace)["next"]
    write_device_check(workspace)  # again
    assert ": copy " in device_latency(workspace)["next"]
    workspace.config.run.metrics("export").unlink()
    assert "yet: run `export` first." in device_latency(workspace)["next"]


def test_a_given_shape_was_not_found_for_the_device(workspace):
    assert is_for_device(workspace.config)
    assert not is_for_device(dataclasses.replace(workspace.config, shape="published/cifar10-resnet56"))


def test_budgets_of_other_kinds_and_of_this_machine(workspace):
    write_json(workspace.config.run.metrics("search"), {"budget_kind": "macs"})
    assert not is_for_device(workspace.config)
    write_device_check(workspace)
    assert (workspace.said, workspace.config.run.check_dir.exists()) == ([], False)
