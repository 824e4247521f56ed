"""The folder for another device: its scripts, run as a user runs them, and the table that they write."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tas_tf.latency.measure import Target
from tas_tf.latency.meter import LatencyMeter
from tas_tf.latency.probe import SCRIPTS, write_probe
from tas_tf.latency.table import LatencyTable
from tas_tf.space.shape import Shape
from tests.digits import tiny_space

_COUNT = 3


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "probe"
    written = []

    def on_written(*numbers: int) -> None:
        written.append(numbers)

    write_probe(tiny_space(), Target(threads=2), folder, count=_COUNT, on_written=on_written)
    assert written == [(number, _COUNT) for number in range(1, _COUNT + 1)]
    script = folder / "measure.py"
    brief = script.read_text().replace("SECONDS = 3.0", "SECONDS = 0.05")
    assert brief != script.read_text()
    script.write_text(brief)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the script without anything of this project."""
    command = [sys.executable, "-I", str(folder / "measure.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_folder_holds_networks_and_scripts(probe):
    names = {path.name for path in probe.iterdir()} - {"latency.json"}
    assert names == {*(f"{number:03}.tflite" for number in range(_COUNT)), "shapes.json", *SCRIPTS}
    header = json.loads((probe / "shapes.json").read_text())
    space = tiny_space()
    assert header["widths"][0] == [unit.width for unit in space.units]
    assert (header["threads"], header["format"]) == (2, "fp32")


def test_the_script_writes_a_table_that_a_budget_can_use(probe, monkeypatch):
    monkeypatch.setattr("tas_tf.latency.table._TOO_NOISY", float("inf"))  # this machine may be busy
    done = run(probe)
    assert done.returncode == 0, done.stderr
    assert "latency.json: " in done.stdout
    assert "XNNPACK" not in done.stdout
    table = LatencyTable.load(probe / "latency.json")
    table.check(tiny_space(), Target(threads=2))
    assert len(table.ratios) == _COUNT
    assert table.runtime.startswith("ai-edge-litert")
    meter = LatencyMeter(tiny_space(), Target(threads=2), table_from=str(probe / "latency.json"))
    assert meter.cost_model()(Shape.full(tiny_space())) > 0


def test_a_runtime_without_fast_kernels_is_named(probe, tmp_path):
    folder = shutil.copytree(probe, tmp_path / "probe")
    script, resolver = folder / "measure.py", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    plain = f"num_threads=threads, experimental_op_resolver_type=OpResolverType.{resolver})"
    changed = script.read_text().replace("num_threads=threads)", plain)
    script.write_text(
        changed.replace("import numpy", "from ai_edge_litert.interpreter import OpResolverType\nimport numpy")
    )
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "this runtime lacks XNNPACK" in done.stdout
    assert LatencyTable.load(folder / "latency.json").runtime.endswith("without XNNPACK")


def test_two_files_are_compared(probe):
    done = run(probe, "--pair", "000.tflite", "001.tflite")
    assert done.returncode == 0, done.stderr
    assert re.match(r"001\.tflite takes \d+\.\d{3} of the time of 000\.tflite", done.stdout)
    assert "threads: 2" in done.stdout
    done = run(probe, "--pair", "000.tflite", "missing.tflite")
    assert (done.returncode, done.stderr.strip()) == (1, "error: there is no file missing.tflite")


def android_log(milliseconds: list[list[float]]) -> str:
    lines = ["device: Pixel 9"]
    for half in milliseconds:
        for number, value in enumerate(half):
            lines += [f"== {number:03}.tflite", "INFO: Loaded model", f"Inference (avg): {1000 * value:.2f}"]
    return "\n".join(lines)


def test_times_of_an_android_device(probe, tmp_path):
    folder = shutil.copytree(probe, tmp_path / "probe")
    halves = [[4.0] + [1.0 + number / 10 for number in range(_COUNT - 1)] for _ in range(2)]
    halves[1] = [2 * value for value in halves[1]]  # the device became hot
    (folder / "android.log").write_text(android_log(halves))
    done = run(folder, "--from_android", "android.log")
    assert done.returncode == 0, done.stderr
    table = LatencyTable.load(folder / "latency.json")
    assert table.device == "Pixel 9"
    assert table.full_ms == pytest.approx(6.0)
    assert table.ratios.tolist() == pytest.approx([value / 4.0 for value in halves[0]], rel=1e-4)
    assert table.noise == pytest.approx(0, abs=1e-4)


def test_an_incomplete_log_is_refused_and_no_table_written(probe, tmp_path):
    folder = shutil.copytree(probe, tmp_path / "probe")
    (folder / "latency.json").unlink(missing_ok=True)
    (folder / "android.log").write_text(android_log([[4.0, 1.0], [4.0]]))
    done = run(folder, "--from_android", "android.log")
    assert done.returncode != 0
    assert "must hold two times of each network" in done.stderr
    assert not (folder / "latency.json").exists()


def test_scripts_need_nothing_of_this_project(probe):
    tree = ast.parse((probe / "measure.py").read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    assert subprocess.run(["sh", "-n", str(probe / "measure_android.sh")]).returncode == 0
