"""The gate changes no contributor's machine: it installs a browser only where `CI` is set."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GATE = Path(__file__).parents[1] / ".ci" / "run"
COMMANDS = {"id": "echo 0", "apt-get": 'echo "$@" >>"$RECORD"', "make": "exit 7"}


@pytest.mark.parametrize(("setting", "installs"), [(None, False), ("", False), ("false", False), ("true", True)])
def test_packages_are_installed_only_where_ci_is_set(tmp_path, setting, installs):
    """As root and without Chromium, up to the first `make`, which fails."""
    folder, record = tmp_path / "bin", tmp_path / "record"
    folder.mkdir()
    for name in ("bash", "dirname", "mktemp", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    for name, body in COMMANDS.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (folder / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    gate = shutil.copy(GATE, tmp_path / ".ci" / "run")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "BASH_ENV")}
    environment |= {"PATH": str(folder), "RECORD": str(record)} | ({} if setting is None else {"CI": setting})
    done = subprocess.run([shutil.which("bash"), gate], env=environment, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert record.exists() == installs
    assert ("Chromium installed" in done.stdout) == installs
    assert ("To run them: apt-get install chromium chromium-driver" in done.stdout) != installs
