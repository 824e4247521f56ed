"""The documentation: its blocks run or say why not, its commands take their flags, and its pages are current."""

import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags

from tas_tf.cli.command import _read_flags
from tas_tf.cli.commands import COMMANDS
from tas_tf.cli.main import module_name
from tas_tf.cli.options import parse
from tas_tf.compression import defaults
from tas_tf.recipes import RECIPES
from tests.commands import fresh_flags, run_command
from tests.digits import tiny_network, tiny_task
from tests.docs import PAGES, ROOT, Block, blocks

#: Why a block isn't run: each reason begins with one of these. What is tested elsewhere names the test.
REASONS = ("trains for", "installs", "needs", "a template", "a file", "tests/")
#: Pages whose Python a test of its own runs.
ELSEWHERE = {"README.md": "tests/test_door.py"}
#: Languages in which a block shows something that nothing could run.
SHOWN = ("", "text", "yaml", "kotlin", "cpp")
SHELL = blocks("bash")
PYTHON = [block for block in blocks("python") if block.page not in ELSEWHERE]


def load_tool(name: str):
    """A module of docs/tools, which isn't a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_is_in_a_language_that_is_known():
    fences = {
        (str(path), name) for path in PAGES for name in re.findall(r"^ *```(\w+)", path.read_text(), re.MULTILINE)
    }
    assert {found for found in fences if found[1] not in ("bash", "python", *SHOWN)} == set()
    assert len(SHELL) > 30
    assert len(PYTHON) > 5


@pytest.mark.parametrize("block", [*SHELL, *blocks("python")], ids=str)
def test_what_is_not_run_says_why(block):
    if block.reason is not None:
        assert block.reason.startswith(REASONS)
        for name in re.findall(r"tests/\S+\.py", block.reason):
            assert (ROOT / name).exists()


@pytest.mark.parametrize("block", [one for one in SHELL if [*one.commands()]], ids=str)
def test_commands_take_the_flags_that_pages_show(block, monkeypatch):
    """Also those that train for hours: their flags and flag files are read as the command does."""
    monkeypatch.chdir(ROOT)
    for name, arguments in block.commands():
        with fresh_flags():
            flags.FLAGS.unparse_flags()
            _read_flags([name, *arguments], COMMANDS[name])
            assert parse().config


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_targets_and_files_that_pages_name_exist(block):
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE)} <= {*known}
    for name in re.findall(r"(?:flags|examples)/[\w/]+\.(?:cfg|py|ipynb)", block.text):
        assert (ROOT / name).exists()
    for name in re.findall(r"python -m (benchmarks\.\w+)", block.text):
        assert importlib.util.find_spec(name)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with what pages take for granted: a model, and flag files."""
    monkeypatch.chdir(tmp_path)
    network = tiny_network()
    for name in ("mine.keras", "student.keras"):
        network.save(name)
    (tmp_path / "flags").symlink_to(ROOT / "flags")
    return tmp_path


def quick_or_slow(block: Block):
    """Large networks take half a minute to describe."""
    is_slow = "keras.applications" in block.text or "published/" in block.text
    return pytest.param(block, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("block", [quick_or_slow(block) for block in SHELL if block.reason is None], ids=str)
def test_shell_blocks_run(block, workplace):
    ran = [*block.commands()]
    lines = [line for line in re.sub(r"\\\n\s*", " ", block.text).splitlines() if line.strip()]
    assert len(ran) == len(lines), "a block that runs has commands of this project alone"
    for name, arguments in ran:
        if "--help" in arguments:
            continue  # tests/cli/test_options.py
        outcome = run_command(importlib.import_module(module_name(name)), *arguments)
        assert outcome.code == 0, outcome.err


def run_page(page: str, names: dict) -> dict:
    """Runs the Python of a page from top to bottom."""
    for block in PYTHON:
        if block.page == page and block.reason is None:
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
    return names


def digits() -> dict:
    """Data that pages take for granted."""
    task = tiny_task()
    datasets = (task.plain(task.indices), task.test())
    train, validation = (tuple(map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))) for data in datasets)
    return {"train": train, "validation": validation, "images": train[0]}


#: Pages with Python that trains, slowly.
TRAINING = ("docs/QUICKSTART.md", "docs/guides/own-data.md")


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON if not block.reason} - {*TRAINING}))
def test_python_of_pages_runs(page, workplace, own_layers):
    run_page(page, {**digits(), "__name__": "page"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", TRAINING)
def test_python_that_trains_runs(page, trained_tiny, workplace, monkeypatch):
    """With fewer epochs than by default."""
    keras.models.load_model(trained_tiny).save("mine.keras")
    monkeypatch.setitem(RECIPES, "fast", {**RECIPES["fast"], "race.proposals": 2, "student.epochs": 2})
    monkeypatch.setattr(defaults, "EPOCHS", 2)
    names = run_page(page, {**digits(), "__name__": "page"})
    assert names["result"].student_metrics["macs"] < names["result"].teacher_metrics["macs"]


def test_links_between_files_lead_somewhere():
    """In the repository; the strict build checks the site, and anchors."""
    for path in PAGES:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", text):
            assert (path.parent / target).exists(), f"{path}: {target}"


@pytest.mark.slow
def test_figures_are_current(tmp_path):
    pytest.importorskip("matplotlib")
    script = ROOT / "docs" / "tools" / "figures.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True, cwd=ROOT)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (ROOT / "docs" / "images").glob("*.svg"))
    for name in made:
        assert (tmp_path / name).read_text() == (ROOT / "docs" / "images" / name).read_text(), "run `make docs`"


def test_sections_of_the_readme_become_pages():
    assert doctest.testmod(load_tool("repository")).failed == 0
    pages = load_tool("repository").readme_pages()
    assert "# Budgets\n" in pages["handbook/budgets.md"]
    titles = re.findall(
        r"^#{2,3} (.*)$", re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL), re.M
    )
    assert len(pages) == 1 + len(titles) - 3  # the last three are on the first page
    assert "```bash" in pages["handbook/from-the-command-line.md"]


def test_links_into_the_repository_become_links_into_the_site():
    with_links = load_tool("repository").with_links
    text = "[a](docs/METHOD.md#cost) [b](#budgets) [c](flags/digits.cfg) `[d](x)` [e](https://a.b/c)\n"
    made = "[a](../METHOD.md#cost) [b](budgets.md) [c](../files/flags/digits.cfg.md) `[d](x)` [e](https://a.b/c)\n"
    assert with_links(text.replace("`[d](x)` ", ""), "handbook/data.md") == made.replace("`[d](x)` ", "")
    assert (
        with_links("[a](../../README.md#data) [b](#here)", "guides/paper.md") == "[a](../handbook/data.md) [b](#here)"
    )
    with pytest.raises(ValueError, match="isn't part of the site"):
        with_links("[a](tas_tf/errors.py)", "index.md")


def test_a_notebook_becomes_a_page():
    outputs = [{"text": ["1\n"], "name": "stdout"}, {"data": {"image/png": "iVBO\n", "text/plain": ["<Figure>"]}}]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    made = load_tool("repository").notebook_page({"cells": cells})
    code, shown, figure = "````python\nprint(1)\n````", "````text\n1\n````", "![Figure](data:image/png;base64,iVBO)"
    assert made == f"# Title\nText.\n\n{code}\n\n{shown}\n\n{figure}\n"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="`make docs` installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    for name, text in pages.items():
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"' >]*", text
        )
        assert loaded == [], name
        assert 'class="mermaid"' not in text  # the theme would load a program for it
        assert "arithmatex" not in text, f"{name}: a formula that isn't MathML"
    for path in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", path.read_text()), path
    assert "tas_tf.compress" in pages["reference/api/compress.html"]
    assert 'id="budget"' in pages["reference/flags.html"]


def test_doctests_become_blocks():
    pytest.importorskip("griffe", reason="`make docs` installs it")
    fenced = load_tool("examples").fenced
    text = "Adds.\n\nExample:\n    >>> 1 + 1\n    2\n    >>> [(1, 2)]\n    [(1, 2)]\n\nMore."
    made = "Adds.\n\nExample:\n    ```pycon\n    >>> 1 + 1\n    2\n    >>> [(1, 2)]\n    [(1, 2)]\n    ```\n\nMore."
    assert fenced(text) == made


def test_blocks_know_their_commands():
    text = "export A=1\nsrun x \\\n  python -m trainers.search --run_dir=a  # why\ntas-tf describe mine.keras\n"
    found = [*Block("page", 1, "bash", text, None).commands()]
    assert found == [("search", ["--run_dir=a"]), ("describe", ["mine.keras"])]
