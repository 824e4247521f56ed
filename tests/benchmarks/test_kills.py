"""What the benchmark that kills commands says about the files that they leave."""

import contextlib
import shutil

import pytest

from benchmarks.kills import _mixed
from tas_tf.replacing import replace_together, scratch_folder
from tests.failures import fail_at

EARLIER = {"fp32.tflite": "earlier", "labels.txt": "earlier", "old/fp32.tflite": "earlier"}
NEW = {"fp32.tflite": "new", "labels.txt": "new", "int8.tflite": "new"}


def write(export, texts):
    for name, text in texts.items():
        (export / name).parent.mkdir(parents=True, exist_ok=True)
        (export / name).write_text(f"    TFL3{text}")


@pytest.fixture
def folders(tmp_path):
    """The run, what it started from, and its uninterrupted result."""
    run, base, whole = (tmp_path / name for name in ("run", "base", "whole"))
    write(base / "export", EARLIER)
    write(whole / "export", NEW)
    return run, base, whole


@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_while_files_are_replaced_is_no_fault(folders, monkeypatch, number):
    run, base, whole = folders
    shutil.copytree(base, run)
    with monkeypatch.context() as patch:
        patch.setattr("tas_tf.replacing._put_back", lambda scratch: None)
        fail_at(patch, "os.replace", number)
        with contextlib.suppress(OSError), scratch_folder(run / "export") as scratch:
            write(scratch, NEW)
            replace_together(scratch, EARLIER | NEW)
    before = sorted(run.rglob("*"))
    assert _mixed(run, base, whole) == []
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    "texts",
    [
        {**EARLIER, "fp32.tflite": "new"},
        {**EARLIER, "int8.tflite": "new"},
        {**NEW, "labels.txt": "earlier"},
        {"fp32.tflite": "earlier"},
        {},
    ],
)
def test_losses_and_mixtures_are_faults(folders, texts):
    run, base, whole = folders
    write(run / "export", texts)
    (fault,) = _mixed(run, base, whole)
    assert "neither the earlier one (" in fault


def test_nothing_was_there(folders):
    run, base, whole = folders
    shutil.rmtree(base)
    assert _mixed(run, base, whole) == []
    shutil.copytree(whole, run)
    assert _mixed(run, base, whole) == []
