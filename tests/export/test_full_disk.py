"""The export if files can't be written: a full disk, or a limit on file size."""

import contextlib
import os
import resource
import subprocess
from pathlib import Path

import pytest

from export import student
from tas_tf.files import write_json, write_model
from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tests.commands import run_command
from tests.digits import tiny_network, tiny_space
from tests.networks import randomize

_LIMIT = 6_000  # bytes; the tiny student's file has more, the records of a step less
_LEFT = 16_384  # bytes left on the full disk; enough for the records, not for the files


def make_run(run: Path) -> Path:
    """Teacher, shape and student with random weights, and an export of them."""
    space = tiny_space()
    shape = Shape.random(space, 0)
    write_model(run / "teacher/model.keras", randomize(tiny_network()))
    write_model(run / "student/model.keras", randomize(build_student(space, shape)))
    write_json(run / "search/shape.json", shape.to_json())
    for step in ("teacher", "student"):
        write_json(run / step / "metrics.json", {"accuracy": 0.5, "loss": 1.0, "macs": 1, "params": 1})
    assert export(run, "fp32").code == 0
    return run


def export(run: Path, formats: str):
    quick = ["--dataset=digits", "--train_limit=150", "--test_limit=20", "--max_accuracy_drop=1", "--latency_rounds=1"]
    return run_command(student, f"--run_dir={run}", f"--formats={formats}", *quick)


def contents(folder: Path) -> dict[Path, bytes]:
    """Files of an export."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def check_refused(outcome, run: Path, before: dict[Path, bytes], reason: str) -> None:
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert contents(run / "export") == before
    assert not list(run.rglob(".partial*"))


@contextlib.contextmanager
def limited_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_file_that_may_not_be_that_large_leaves_the_earlier_export(tmp_path):
    run = make_run(tmp_path / "run")
    before = contents(run / "export")
    with limited_files():
        outcome = export(run, "fp16,fp32")
    check_refused(outcome, run, before, "File too large")


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_export(small_disk):
    run = make_run(small_disk / "run")
    before = contents(run / "export")
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - _LEFT))
    for formats in ("saved_model", "fp32,int8"):
        check_refused(export(run, formats), run, before, "No space left on device")
    filler.unlink()
    assert export(run, "saved_model").code == 0
    assert (run / "export/saved_model/saved_model.pb").exists()
