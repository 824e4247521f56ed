"""The wheel: what it holds, and what it puts into users' environments."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest

from tas_tf.version import __version__

ROOT = Path(__file__).parents[1]
#: Folders of the repository, and what they are called in the wheel.
PLACES = {"tas_tf": "tas_tf", "trainers": "tas_tf/trainers", "export": "tas_tf/export"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, so that no build folder stays in the repository, and without any network."""
    source, out = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in PLACES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_it_has_one_name_at_the_top(wheel):
    assert {PurePosixPath(name).parts[0] for name in wheel.namelist()} == {"tas_tf", f"tas_tf-{__version__}.dist-info"}


@pytest.mark.parametrize("folder", PLACES)
def test_every_file_of_the_packages_is_in_it(wheel, folder):
    ours = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".json", ".html")]
    assert ours
    for path in ours:
        name = f"{PLACES[folder]}/{path.relative_to(ROOT / folder).as_posix()}"
        assert wheel.read(name) == path.read_bytes()


def test_extras_are_not_installed_by_default(wheel):
    metadata = message_from_bytes(wheel.read(f"tas_tf-{__version__}.dist-info/METADATA"))
    assert set(metadata.get_all("Provides-Extra")) == {"datasets", "keras2", "qat", "report", "micro", "all", "gpu"}
    required = [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]
    assert any(text.startswith("tensorflow~=") for text in required)
    for name in ("tensorflow-datasets", "tf_keras", "tensorflow-model-optimization", "matplotlib", "Jinja2"):
        assert not any(text.startswith(name) for text in required)


def test_nothing_in_it_imports_what_is_not(wheel):
    """`trainers` and `export` exist in the repository alone; a user's own `export.py` must not matter."""
    for name in (name for name in wheel.namelist() if name.endswith(".py")):
        for node in ast.walk(ast.parse(wheel.read(name))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in imported}.isdisjoint(["trainers", "export"]), name


def test_a_command_runs_from_it_beside_a_users_own_export(wheel, tmp_path):
    """In a folder where a user has files named as ours are in the repository."""
    wheel.extractall(tmp_path / "installed")
    (tmp_path / "work").mkdir()
    for name in ("export.py", "trainers.py"):
        (tmp_path / "work" / name).write_text("raise RuntimeError('This file is the user's own.')")
    command = [sys.executable, "-m", "tas_tf.export.student", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
    assert "--run_dir" in done.stdout, done.stderr
