"""The wheel and the source distribution: what they hold, and what it puts into users' environments."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest
from packaging.specifiers import SpecifierSet

from tas_tf.version import __version__

ROOT = Path(__file__).parents[1]
#: Folders of the repository, and what they are called in the wheel.
PLACES = {"tas_tf": "tas_tf", "trainers": "tas_tf/trainers", "export": "tas_tf/export"}


#: What a clone has at its top, as far as a build may take it.
CLONED = {
    *("tas_tf", "trainers", "export", "flags", "examples", "tests", "docs", "benchmarks"),
    *(
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "SECURITY.md",
    ),
    *("Makefile", "requirements.txt", "requirements-docs.txt", "mkdocs.yml", "BUILD.md"),
}
#: Runs a step of the build as pip does: its name, the folder to write to.
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
#: How pip installs here.
INSTALL = ("--no-index", "--no-deps", "--quiet", "--disable-pip-version-check")


def build(kind: str, source: Path, out: Path) -> Path:
    """Builds a distribution without any network; returns its file."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", out], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """Built from a copy of what a clone holds, so that no build folder stays in the repository."""
    source = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name in CLONED and path.is_dir():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name in CLONED:
            shutil.copy(path, source)
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel_file(sdist, tmp_path_factory) -> Path:
    """Built from the source distribution, as pip does it for platforms without a wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / f"tas_tf-{__version__}", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel(wheel_file) -> zipfile.ZipFile:
    with zipfile.ZipFile(wheel_file) as archive:
        yield archive


def test_the_source_has_what_users_read_and_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    wanted = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "pyproject.toml", "setup.py")
    assert names >= {PurePosixPath(name) for name in wanted}
    assert names >= {PurePosixPath("flags/digits.cfg"), PurePosixPath("examples/compress.ipynb")}
    assert {name.parts[0] for name in names if name.parts}.isdisjoint(
        ["tests", "docs", "benchmarks", "requirements.txt"]
    )


def test_the_version_is_the_same_everywhere(wheel):
    assert wheel.read(f"tas_tf-{__version__}.dist-info/METADATA").startswith(b"Metadata-Version: 2.4")
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation[1] == __version__
    newest = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1]
    assert __version__ in newest.partition("###")[0]


def test_it_says_what_it_is_for(wheel):
    metadata = message_from_bytes(wheel.read(f"tas_tf-{__version__}.dist-info/METADATA"))
    classifiers = metadata.get_all("Classifier")
    versions = {
        text.rpartition(" ")[2] for text in classifiers if text.startswith("Programming Language :: Python :: 3.")
    }
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert versions == {f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}.5")}
    assert "Typing :: Typed" in classifiers
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# tas_tf")
    assert [text.partition(", ")[0] for text in metadata.get_all("Project-URL")] == ["Paper"]


def test_the_index_would_take_both(sdist, wheel_file):
    pytest.importorskip("twine", reason="`make install` installs it")
    command = [sys.executable, "-m", "twine", "check", "--strict", sdist, wheel_file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_has_one_name_at_the_top(wheel):
    assert {PurePosixPath(name).parts[0] for name in wheel.namelist()} == {"tas_tf", f"tas_tf-{__version__}.dist-info"}


@pytest.mark.parametrize("folder", PLACES)
def test_every_file_of_the_packages_is_in_it(wheel, folder):
    suffixes = (".py", ".json", ".html", ".css", ".js", ".typed")
    ours = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdist", "wheel_file"])
def test_it_installs_into_a_new_environment(kind, request, tmp_path):
    """By pip alone; packages that it needs are taken from this environment, since they are large."""
    venv.create(tmp_path / "new", with_pip=True)
    python, tool = (tmp_path / "new" / "bin" / name for name in ("python", "tas-tf"))
    (own,) = (tmp_path / "new" / "lib").glob("python*/site-packages")
    borrowed = sysconfig.get_paths()["purelib"]
    (own / "borrowed.pth").write_text(f"{borrowed}\n")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command, building = [python, "-m", "pip", "install", *INSTALL], environment
    if kind == "sdist":  # without isolation, which would download setuptools; new environments may have an old one
        command, building = [*command, "--no-build-isolation"], {**environment, "PYTHONPATH": borrowed}
    subprocess.run([*command, request.getfixturevalue(kind)], check=True, cwd=tmp_path, env=building)

    def said(*arguments: str) -> str:
        return subprocess.run([tool, *arguments], check=True, cwd=tmp_path, env=environment, capture_output=True).stdout

    assert __version__.encode() in said("--version")
    assert json.loads(said("describe", "--model=resnet8", "--image_size=8", "--json"))["macs"] > 0
    assert (own / "tas_tf" / "py.typed").exists()
