import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tas_tf.files import atomic_folder, write_json
from tas_tf.interruption import Terminated, listening
from tas_tf.replacing import put_back, remove_partial, unfinished, written_aside
from tests.failures import OPERATIONS, contents, fail_at, names
from tests.replaced import make, replace


@pytest.fixture
def results(tmp_path) -> tuple[Path, dict[str, bytes], dict[str, bytes]]:
    """A folder with the earlier result, and what is in it before and after the replacement."""
    for name in ("folder", "after"):
        make(tmp_path / name, "earlier", first=True)
        (tmp_path / name / "notes.txt").write_text("mine")
    replace(tmp_path / "after")
    return tmp_path / "folder", contents(tmp_path / "folder"), contents(tmp_path / "after")


def count_operations(monkeypatch, work, operations=OPERATIONS) -> int:
    with monkeypatch.context() as patch:
        done = fail_at(patch, operations, 10**6)
        work()
    return len(done)


def test_all_are_replaced(results):
    folder, _, after = results
    assert sorted(after) == ["metrics.json", "model.bin", "new/model.bin", "notes.txt", "saved/a"]
    assert {after[name] for name in after if name != "notes.txt"} == {b"later"}
    assert names(folder.with_name("after")) == ["metrics.json", "model.bin", "new", "notes.txt", "saved"]


def test_whatever_fails_one_result_is_whole(results, monkeypatch, tmp_path):
    folder, before, after = results
    make(tmp_path / "counted", "earlier", first=True)
    count = count_operations(monkeypatch, lambda: replace(tmp_path / "counted"))
    assert count > 30
    ends = []
    for number in range(count):
        with monkeypatch.context() as patch:
            fail_at(patch, OPERATIONS, number)
            with contextlib.suppress(OSError):
                replace(folder)
        found = {name: content for name, content in contents(folder).items() if not name.startswith(".partial-")}
        ends.append(found == after)
        assert found in (before, after), number
        assert not unfinished(folder)
        remove_partial(folder)
        if ends[-1]:
            assert contents(folder) == after
            for path in folder.iterdir():
                path.rename(tmp_path / f"{number} {path.name}")
            make(folder, "earlier", first=True)
            (folder / "notes.txt").write_text("mine")
        assert contents(folder) == before
        assert "new" not in names(folder)
    assert ends.count(False) > 20
    assert ends[-1]


def test_new_files_in_place_are_no_failure(results, monkeypatch, tmp_path):
    """Not even if the disk can't be told that the old ones no longer count."""
    folder, _, after = results
    make(tmp_path / "counted", "earlier", first=True)
    count = count_operations(monkeypatch, lambda: replace(tmp_path / "counted"), ["os.fsync"])
    with monkeypatch.context() as patch:
        fail_at(patch, "os.fsync", count - 1)
        replace(folder)
    assert contents(folder) == after


def test_wherever_it_is_killed_one_result_is_whole(results, tmp_path):
    """Also if the process that puts the files back is killed in turn."""
    folder, before, after = results
    command = [sys.executable, "-m", "tests.replaced", folder, tmp_path / "ends"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    ends = [contents(end) for end in sorted((tmp_path / "ends").iterdir())]
    assert all(end in (before, after) for end in ends)
    assert ends.count(before) > 20
    assert ends[-1] == after


def test_a_failure_to_put_back_is_made_good_later(results, monkeypatch):
    folder, before, after = results
    with monkeypatch.context() as patch:
        fail_at(patch, "os.replace", 5)
        fail_at(patch, "os.rename", 0)
        patch.setattr("tas_tf.replacing._flush_folders", lambda *arguments: os.rename("a", "b"))
        with pytest.raises(OSError, match="failure"):
            replace(folder)
    assert len(unfinished(folder)) == 1
    replace(folder)  # the next one puts back first
    assert not unfinished(folder)
    remove_partial(folder)
    assert contents(folder) == after != before


def test_what_others_replace_beside_it_is_left_alone(tmp_path, monkeypatch):
    for name in ("a", "b"):
        with atomic_folder(tmp_path / name) as made:
            (made / "file").write_text("earlier")

    def again(name):
        with atomic_folder(tmp_path / name) as made:
            (made / "file").write_text("later")

    with monkeypatch.context() as patch:
        patch.setattr("tas_tf.replacing._put_back", lambda scratch: None)
        fail_at(patch, "os.replace", 2)
        with pytest.raises(OSError, match="failure"):
            again("a")
    assert not (tmp_path / "a").exists()
    again("b")
    remove_partial(tmp_path, of="b")
    assert len(unfinished(tmp_path)) == 1
    remove_partial(tmp_path, of="a")
    assert {name: (tmp_path / name / "file").read_text() for name in names(tmp_path)} == {"a": "earlier", "b": "later"}


def test_a_replacement_that_another_process_ends_is_over(results, monkeypatch):
    folder, before, _ = results
    with monkeypatch.context() as patch:
        patch.setattr("tas_tf.replacing._put_back", lambda scratch: None)
        fail_at(patch, "os.replace", 3)
        with pytest.raises(OSError, match="failure"):
            replace(folder)
    read = Path.read_text

    def read_too_late(path, **options):
        monkeypatch.setattr(Path, "read_text", read)
        put_back(folder)
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", read_too_late)
    remove_partial(folder, of="model.bin")
    assert contents(folder) == before


def test_a_request_to_end_waits(results, monkeypatch):
    folder, _, after = results
    real, sent = os.replace, []

    def replace_and_ask(*paths):
        real(*paths)
        if len(sent) < 1:
            sent.append(paths)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("os.replace", replace_and_ask)
    with pytest.raises(Terminated), listening():
        replace(folder)
    assert sent
    assert contents(folder) == after


def test_a_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "probe").write_text("precious")
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "probe"):
        pytest.fail("nothing must be made")
    assert names(tmp_path) == ["probe"]


def test_a_folder_named_like_those_of_the_replacement(tmp_path):
    for text in ("1", "2"):
        with atomic_folder(tmp_path / "replaced") as made:
            write_json(made / "list.json", text)
    assert contents(tmp_path) == {"replaced/list.json": b'"2"\n'}


def test_leftovers_of_a_kill_are_no_results(tmp_path):
    leftover = tmp_path / ".partial-abc"
    leftover.mkdir()
    (leftover / "model.keras").write_bytes(b"half")
    assert list(tmp_path.glob("*.keras")) == []
    remove_partial(tmp_path, of="shape.json")
    assert names(tmp_path) == [".partial-abc"]
    remove_partial(tmp_path, of="model.keras")
    assert names(tmp_path) == []
    leftover.mkdir()
    remove_partial(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_written_aside_is_replaced_only_if_that_works(tmp_path, fails):
    (tmp_path / "labels.npy").write_text("earlier")
    with contextlib.suppress(OSError), written_aside(tmp_path / "labels.npy") as aside:
        assert aside.name == "labels.npy"
        aside.write_text("later")
        if fails:
            raise OSError
    assert contents(tmp_path) == {"labels.npy": b"earlier" if fails else b"later"}
