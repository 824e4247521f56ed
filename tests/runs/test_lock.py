"""Two processes on one run folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tas_tf.errors import UserError
from tas_tf.runs.lock import LOCK, acquire, check_free, release_all
from tas_tf.runs.run import Run

HOLD = """
import sys, time
from pathlib import Path
from tas_tf.runs.lock import acquire
acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock on a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def _released():
    yield
    release_all()


def test_the_second_process_is_refused_until_the_first_one_is_dead(holder, tmp_path):
    for refused in (check_free, acquire, lambda folder: Run(folder).prepare()):
        with pytest.raises(
            UserError, match=rf"`run_dir`: process {holder.pid} on .* is working on .*another `run_dir`"
        ):
            refused(tmp_path)
    step = Run(tmp_path).step("search", settings={}, outputs=[tmp_path / "search" / "shape.json"])
    step.checkpoints.mkdir(parents=True)
    with pytest.raises(UserError, match="is working on"):
        step.begin(overwrite=True)
    assert step.checkpoints.exists()  # what it would have replaced
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    check_free(tmp_path)
    acquire(tmp_path)
    check_free(tmp_path)
    acquire(tmp_path)  # the same process may do so again
    assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_a_released_folder_is_free(tmp_path):
    acquire(tmp_path)
    release_all()
    assert list(tmp_path.iterdir()) == []
    code = "import sys; from pathlib import Path; from tas_tf.runs.lock import acquire; acquire(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_looking_writes_nothing(tmp_path):
    check_free(tmp_path / "missing")
    check_free(tmp_path)
    assert list(tmp_path.iterdir()) == []
