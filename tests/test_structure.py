"""Imports run down one line, from model over graph, space and shape to the student; entry points stand outside."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: The rooms of the library in the order in which data flows: each imports only from those before it.
LINE = (
    *("version", "errors", "extras", "settings", "recipes", "quiet", "interruption", "variables", "workers"),
    *("replacing", "files", "scripts", "averaging"),
    *("published", "graph", "objectives", "space", "cost", "decode", "student", "importance", "supernet", "proposals"),
    *("zoo", "data", "board", "training", "behaviour", "searching", "race", "timing", "baselines", "qat"),
    *("deploy", "latency", "description", "runs", "report", "pipeline", "compression", "cli"),
)
#: What only describes networks and counts: it loads no TensorFlow.
WITHOUT_KERAS = ("graph.graph", "space.space", "space.shape", "cost.cost_model", "cost.budget", "decode.decode")


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def read_rooms() -> dict[str, set[str]]:
    """For each room, a module or a package, the other rooms that it imports."""
    rooms: dict[str, set[str]] = {}
    for path in (ROOT / "tas_tf").rglob("*.py"):
        room = path.relative_to(ROOT / "tas_tf").parts[0].removesuffix(".py")
        parts = [module.split(".") for module in imports_of(path)]
        others = {names[1] for names in parts if names[0] == "tas_tf" and len(names) > 1}
        rooms.setdefault(room, set()).update(others - {room})
    return rooms


def reached(rooms: dict[str, set[str]], start: str) -> set[str]:
    """Everything that a room imports, over others too."""
    found: set[str] = set()
    waiting = list(rooms[start])
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting += rooms.get(room, ())
    return found


def test_every_room_stands_in_the_line():
    assert read_rooms().keys() - {"__init__", "__main__"} == set(LINE)


@pytest.mark.parametrize("place", range(len(LINE)), ids=LINE)
def test_imports_run_down_the_line(place):
    rooms = read_rooms()
    assert reached(rooms, LINE[place]).isdisjoint(LINE[place + 1 :])


def test_the_library_knows_no_flags_and_no_entry_points():
    for path in (ROOT / "tas_tf").rglob("*.py"):
        packages = {module.split(".")[0] for module in imports_of(path)}
        assert packages.isdisjoint(["trainers", "export", "benchmarks", "tests"]), path
        if path.relative_to(ROOT / "tas_tf").parts[0] != "cli":
            assert "absl" not in packages, path


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "trainers", "export"])
def test_nothing_but_tests_imports_tests(folder):
    paths = list((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        assert "tests" not in {module.split(".")[0] for module in imports_of(path)}, path


def test_graphs_and_costs_load_no_tensorflow():
    imports = "; ".join(f"import tas_tf.{room}" for room in WITHOUT_KERAS)
    program = f"import sys; {imports}; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes a text in the encoding of the user's system."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg for keyword in call.keywords}
    if name == "open":
        # `Path.open("w")`, `open(path, "w")`, `open(path)`; other modules' `open` has no such mode.
        own = isinstance(call.func, ast.Name)
        modes = [each.value for each in call.args[own:] if isinstance(each, ast.Constant)] or (["r"] if own else [])
        is_text = any(isinstance(mode, str) and set(mode) <= set("rwax+t") for mode in modes)
    else:
        # `tas_tf.files.read_text(path)` is a function of ours.
        is_text = name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute)
    is_text = is_text or ("text" in keywords and name in ("run", "Popen", "check_output"))
    return is_text and "encoding" not in keywords


@pytest.mark.parametrize("folder", ["tas_tf", "trainers", "export", "examples", "docs/tools"])
def test_texts_name_their_encoding(folder):
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and is_text_without_encoding(call)
    ]
    assert found == []
