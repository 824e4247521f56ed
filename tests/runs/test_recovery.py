import os
from pathlib import Path

import pytest

from tas_tf.errors import UserError
from tas_tf.replacing import put_back, remove_partial, replace_together, scratch_folder, unfinished
from tas_tf.runs.lock import LOCK, release_all
from tas_tf.runs.recovery import recover
from tas_tf.runs.run import Run
from tests.failures import contents, fail_at

fcntl = pytest.importorskip("fcntl")

NAMES = ("model.bin", "metrics.json")
#: Where results are replaced: reports in the run folder, results of steps, and the same in runs inside it.
REPLACED = (".", "export", "budgets/macs_0.25", "budgets/macs_0.25/student", "budgets/macs_0.25/rivals/uniform/student")


@pytest.fixture(autouse=True)
def _released():
    yield
    release_all()


@pytest.fixture
def kill(monkeypatch):
    """Replaces results in a folder as a process does that is killed halfway."""

    def do(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            (folder / name).write_text("earlier")
        with monkeypatch.context() as patch:
            patch.setattr("tas_tf.replacing._put_back", lambda scratch: None)
            fail_at(patch, "os.replace", 4)  # after one has been replaced and the other moved away
            with scratch_folder(folder) as scratch:
                for name in NAMES:
                    (scratch / name).write_text("later")
                with pytest.raises(OSError, match="failure"):
                    replace_together(scratch, NAMES)
        assert is_halfway(folder)

    return do


def is_halfway(folder: Path) -> bool:
    return (folder / "model.bin").read_text() == "later" and not (folder / "metrics.json").exists()


def hold(folder: Path) -> int:
    """Locks a folder as another process does: by a file opened apart."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_what_a_killed_process_was_replacing_is_put_back(kill, tmp_path):
    for name in REPLACED:
        kill(tmp_path / name)
    recover(Run(tmp_path))
    release_all()
    for name in REPLACED:
        assert not unfinished(tmp_path / name)
        remove_partial(tmp_path / name)
    assert contents(tmp_path) == {str(Path(name, file)): b"earlier" for name in REPLACED for file in NAMES}


@pytest.mark.parametrize(("run_dir", "folder"), [("a", "a"), ("rivals/uniform", "rivals/uniform/student")])
def test_what_another_process_is_replacing_is_left_alone(kill, tmp_path, run_dir, folder):
    kill(tmp_path / folder)
    held = hold(tmp_path / run_dir)
    recover(Run(tmp_path))
    assert is_halfway(tmp_path / folder)
    with pytest.raises(UserError, match="is working on"):
        recover(Run(tmp_path / run_dir))
    os.close(held)
    recover(Run(tmp_path))
    assert not unfinished(tmp_path / folder)


@pytest.mark.parametrize("folder", ["photos/cats", "teacher/checkpoints", "a/export"])
def test_other_folders_are_not_looked_at(kill, tmp_path, folder):
    kill(tmp_path / folder)
    for look in (recover, lambda run: put_back(run.path), lambda run: remove_partial(run.path)):
        look(Run(tmp_path))
        assert is_halfway(tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == [folder.split("/")[0]]


def test_a_folder_that_vanishes_meanwhile_is_no_error(tmp_path, monkeypatch):
    for name in ("photos", "export"):
        (tmp_path / name).mkdir()
    scan = os.scandir

    def scan_after_removal(path):
        if os.path.basename(path) == "photos":
            os.rmdir(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_after_removal)
    recover(Run(tmp_path))
    assert not (tmp_path / "photos").exists()
