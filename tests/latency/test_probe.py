"""Folders for another device: their scripts, run as a user runs them, and what they write."""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tas_tf.latency.measure import Target
from tas_tf.latency.meter import LatencyMeter
from tas_tf.latency.probe import SCRIPTS, write_check, write_probe
from tas_tf.latency.table import LatencyTable
from tas_tf.space.shape import Shape
from tests.digits import tiny_space

_COUNT = 7


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "probe"
    written = []

    def on_written(*numbers: int) -> None:
        written.append(numbers)

    write_probe(tiny_space(), Target(threads=2), folder, count=_COUNT, on_written=on_written)
    assert written == [(number, _COUNT) for number in range(1, _COUNT + 1)]
    return brief(folder)


@pytest.fixture
def copied(probe, tmp_path) -> Path:
    """A copy of the probe, which a test may change."""
    return Path(shutil.copytree(probe, tmp_path / "probe"))


@pytest.fixture
def check(probe, tmp_path) -> Path:
    """The folder that checks the smallest network against the unpruned one."""
    header = {"format": "fp32", "threads": 1, "budget": "latency:0.5", "budget_share": 0.5, "student": "abc"}
    return brief(write_check(tmp_path / "check", [probe / "000.tflite", probe / "001.tflite"], header))


def brief(folder: Path) -> Path:
    """Makes the script measure only shortly."""
    return changed(folder, "SECONDS = 3.0", "SECONDS = 0.05")


def changed(folder: Path, before: str, after: str) -> Path:
    script = folder / "measure.py"
    assert before in script.read_text()
    script.write_text(script.read_text().replace(before, after))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the script without anything of this project."""
    command = [sys.executable, "-I", str(folder / "measure.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_folder_holds_networks_and_scripts(probe):
    names = {path.name for path in probe.iterdir()} - {"latency.json"}
    files = [f"{number:03}.tflite" for number in range(_COUNT)]
    assert names == {*files, "shapes.json", *SCRIPTS}
    header = json.loads((probe / "shapes.json").read_text())
    space = tiny_space()
    assert header["widths"][0] == [unit.width for unit in space.units]
    assert (header["threads"], header["format"]) == (2, "fp32")
    assert header["files"] == {name: (probe / name).stat().st_size for name in files}


def test_the_script_writes_a_table_that_a_budget_can_use(copied, monkeypatch):
    monkeypatch.setattr("tas_tf.latency.table._TOO_NOISY", float("inf"))  # this machine may be busy
    done = run(copied)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("latency.json is ready.\n")
    assert "XNNPACK" not in done.stdout
    table = LatencyTable.load(copied / "latency.json")
    table.check(tiny_space(), Target(threads=2))
    assert len(table.ratios) == _COUNT
    assert table.runtime.startswith("ai-edge-litert")
    assert not {"files", "noises"} & set(json.loads((copied / "latency.json").read_text()))
    meter = LatencyMeter(tiny_space(), Target(threads=2), table_from=str(copied / "latency.json"))
    assert meter.cost_model()(Shape.full(tiny_space())) > 0


def test_a_runtime_without_fast_kernels_is_named(copied):
    resolver = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    plain = f"num_threads=threads, experimental_op_resolver_type=OpResolverType.{resolver})"
    changed(copied, "num_threads=threads)", plain)
    changed(copied, "import argparse", "from ai_edge_litert.interpreter import OpResolverType\nimport argparse")
    done = run(copied)
    assert done.returncode == 0, done.stderr
    assert "this runtime lacks XNNPACK" in done.stdout
    assert LatencyTable.load(copied / "latency.json").runtime.endswith("without XNNPACK")


@pytest.mark.slow
def test_tensorflow_alone_measures_too(copied):
    changed(copied, '("ai-edge-litert", "ai_edge_litert.interpreter")', '("none", "no_such_package")')
    done = run(copied)
    assert done.returncode == 0, done.stderr
    assert LatencyTable.load(copied / "latency.json").runtime.startswith("tensorflow ")


@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_an_incomplete_copy_is_refused_at_once(copied, harm):
    (copied / "latency.json").unlink(missing_ok=True)
    last = copied / f"{_COUNT - 1:03}.tflite"
    if harm == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:-100])
    done = run(copied)
    assert done.returncode == 1
    assert f"error: 1 of {_COUNT} networks are missing or incomplete, such as {last.name}" in done.stderr
    assert "timed" not in done.stdout
    assert not (copied / "latency.json").exists()


def harnessed(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Runs lines with the script as the module `measure`."""
    lines = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport measure\n{code}"
    return subprocess.run([sys.executable, "-I", "-c", lines], capture_output=True, text=True)


def test_noise_is_told_on_the_device(copied):
    code = """
def noisy(calls, seconds):
    return [1.0] * len(calls), [1.0] + [1.5] * (len(calls) - 1)
measure.time_in_turns = noisy
sys.argv = ["measure.py"]
measure.main()
"""
    done = harnessed(copied, code)
    assert done.returncode == 0, done.stderr
    assert "repeated measurements differ by 40.0%" in done.stdout
    assert "warning: that is too much for a budget, which needs at most 20%" in done.stdout


def test_every_input_is_set(copied):
    code = """
class Interpreter:
    def get_input_details(self):
        return [{"index": 3, "shape": (1, 2), "dtype": "float32"}, {"index": 5, "shape": (1, 4), "dtype": "int8"}]
    def get_output_details(self):
        return [{"index": 7}]
    def set_tensor(self, index, value):
        print("set", index, value.shape, value.dtype)
    def invoke(self):
        print("invoked")
    def get_tensor(self, index):
        print("got", index)
measure.bind(Interpreter())()
"""
    done = harnessed(copied, code)
    assert done.stdout.split("\n")[:-1] == ["set 3 (1, 2) float32", "set 5 (1, 4) int8", "invoked", "got 7"]


@pytest.mark.parametrize(
    ("first", "second", "kept", "verdict"),
    [(0.4, 0.42, True, "kept"), (0.52, 0.515, False, "not kept"), (0.49, 0.505, None, "too noisy to tell")],
)
def test_a_student_is_checked_against_its_budget(check, first, second, kept, verdict):
    code = f"""
measure.time_in_turns = lambda calls, seconds: ([2.0, 2.0, 2.0 * {first}], [2.0, 2.0, 2.0 * {second}])
sys.argv = ["measure.py"]
measure.main()
"""
    done = harnessed(check, code)
    assert done.returncode == 0, done.stderr
    assert f"Budget latency:0.5, at most 0.500: {verdict}" in done.stdout
    found = json.loads((check / "student.json").read_text())
    assert found["kept"] is kept
    expected = {"share": (first + second) / 2, "noise": abs(first - second), "budget_share": 0.5, "teacher_ms": 2.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["student"], found["format"]) == ("abc", "fp32")
    assert found["runtime"].startswith("ai-edge-litert")


def test_a_check_runs_as_it_is(check):
    done = run(check)
    assert done.returncode == 0, done.stderr
    assert re.search(r"the student takes \d\.\d{3} of the original's time", done.stdout)
    assert json.loads((check / "student.json").read_text())["share"] > 0


#: What benchmark_model prints, shortened.
_PRINTED = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [2]
INFO: Graph: [{graph}]
INFO: Use xnnpack: [1]
INFO: Loaded model {graph}
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: XNNPACK delegate created.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate.
INFO: The input model file size (MB): 0.010348
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=5 first=3512391 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798
INFO: Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): {us}
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
"""
#: Milliseconds of each network.
_MS = [4000.0] + [1000.0 + 100 * number for number in range(_COUNT - 1)]


@pytest.fixture
def phone(tmp_path, monkeypatch) -> Path:
    """A folder with programs that stand in for adb, which passes no exit codes, and benchmark_model; with their calls.

    The phone becomes slower with each call.
    """
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "printed").write_text(_PRINTED)
    (folder / "name").write_text("Pixel 9")
    (folder / "ms").write_text(json.dumps(_MS))
    programs = {
        "adb": """
import os, shutil, subprocess, sys
from pathlib import Path
here = Path(__file__).parent
(here / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
def local(path):
    return str(here / path.lstrip("/")) if path.startswith("/data") else path
if sys.argv[1] == "push":
    *files, place = sys.argv[2:]
    for file in files:
        shutil.copy(file, local(place))
elif sys.argv[2] == "getprop":
    print((here / "name").read_text() + "\\r")
else:
    words = [local(word) for word in sys.argv[2:] if word not in ("taskset", "f0")]
    words = [word.replace("--graph=", f"--graph={here}") for word in words]
    subprocess.run(words)
""",
        "benchmark_model": """
import json, sys
from pathlib import Path
here = Path(__file__).parents[4]
graph = next(word.partition("=")[2] for word in sys.argv if word.startswith("--graph="))
if not Path(graph).exists():
    sys.exit(f"ERROR: Failed to mmap model {graph}")
if (here / "broken").exists():
    sys.exit("ERROR: Illegal instruction")
calls = (here / "calls").read_text().count("--graph=")
ms = json.loads((here / "ms").read_text())[int(Path(graph).stem)] * (1 + calls / 100)
print((here / "printed").read_text().format(graph=graph, us=f"{1000 * ms:.6g}"))
""",
    }
    for name, code in programs.items():
        (folder / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    return folder


def on_phone(folder: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = ["sh", str(folder / "measure_android.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_times_of_an_android_device(copied, phone):
    done = on_phone(copied, "benchmark_model", cwd=phone)  # a relative path
    assert done.returncode == 0, done.stderr + done.stdout
    table = LatencyTable.load(copied / "latency.json")
    table.check(tiny_space(), Target(threads=2))
    assert table.device == "Pixel 9"
    assert "10 of 18 calls timed" in done.stdout
    assert re.fullmatch(r"benchmark_model [0-9a-f]{12}", table.runtime)
    # In turns, so that the slowing down of the phone counts little.
    assert table.ratios.tolist() == pytest.approx([value / 4000.0 for value in _MS], rel=0.01)
    assert table.noise < 0.02
    calls = (phone / "calls").read_text()
    assert "--num_threads=2 --use_xnnpack=true" in calls
    order = re.findall(r"(\d+)\.tflite --num", calls)
    assert order == ["000", "001", "002", "003", "004", "000", "005", "006", "000"] + [
        *("000", "006", "005", "000", "004", "003", "002", "001", "000")
    ]
    assert not list((phone / "data" / "local" / "tmp").iterdir())


def test_a_phone_without_a_name(copied, phone):
    (phone / "name").write_text("")
    done = on_phone(copied, str(phone / "benchmark_model"))
    assert done.returncode == 0, done.stderr
    assert LatencyTable.load(copied / "latency.json").device == "Android"
    log = copied / "android.log"
    log.write_text(log.read_text().replace("device: Android", "device: "))
    done = run(copied, "--from_android", str(log))
    assert (done.returncode, "doesn't hold the times of all networks" in done.stderr) == (1, True)


def test_a_single_network_on_a_phone(copied):
    done = harnessed(copied, 'print(measure.android_order(["000.tflite"]))')
    assert done.stdout == "['000.tflite', '000.tflite']\n"


def test_a_runtime_that_cannot_be_imported_is_told(copied):
    """It lacks what it needs, which is another error than a runtime that isn't installed."""
    code = """
def import_module(name):
    if name.startswith("ai_edge_litert"):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")
    raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
measure.importlib.import_module = import_module
measure.load_runtime()
"""
    done = harnessed(copied, code)
    assert done.returncode == 1
    assert "warning: ai-edge-litert can't be imported: No module named 'numpy'" in done.stderr
    assert "tensorflow" not in done.stderr
    assert "error: install ai-edge-litert" in done.stderr


def test_cores_can_be_chosen(copied, phone):
    assert on_phone(copied, str(phone / "benchmark_model"), "f0").returncode == 0
    assert "shell taskset f0 /data/local/tmp/tas_tf_probe/benchmark_model --graph=" in (phone / "calls").read_text()
    assert LatencyTable.load(copied / "latency.json").device == "Pixel 9, cores f0"


def test_a_student_is_checked_on_a_phone(check, phone):
    done = on_phone(check, str(phone / "benchmark_model"))
    assert done.returncode == 0, done.stderr
    assert "Pixel 9: the student takes 0.250 of the original's time" in done.stdout
    assert "Budget latency:0.5, at most 0.500: kept" in done.stdout
    found = json.loads((check / "student.json").read_text())
    assert found["share"] == pytest.approx(0.25, rel=0.01)
    assert found["kept"] is True
    order = re.findall(r"(\d+)\.tflite --num", (phone / "calls").read_text())
    assert order == ["000", "001"] * 5 + ["000"] + (["000", "001"] * 5 + ["000"])[::-1]


def test_a_benchmark_that_fails_is_told_and_the_phone_is_left_clean(copied, phone):
    (phone / "broken").touch()
    done = on_phone(copied, str(phone / "benchmark_model"))
    assert done.returncode == 1
    assert "error: benchmark_model didn't time 000.tflite" in done.stderr
    assert "ERROR: Illegal instruction" in done.stderr
    assert not (copied / "latency.json").exists()
    assert not list((phone / "data" / "local" / "tmp").iterdir())
    done = on_phone(copied, str(phone / "nothing"))
    assert (done.returncode, done.stderr) == (1, f"error: there is no file {phone}/nothing\n")


def test_a_phone_without_fast_kernels_is_named(copied, phone):
    printed = (phone / "printed").read_text()
    line = next(line for line in printed.splitlines() if "Explicitly" in line)
    told = "INFO: Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate."
    (phone / "printed").write_text(printed.replace(line, told))
    done = on_phone(copied, str(phone / "benchmark_model"))
    assert done.returncode == 0, done.stderr
    assert "this runtime lacks XNNPACK" in done.stdout
    assert LatencyTable.load(copied / "latency.json").runtime.endswith(", without XNNPACK")


@pytest.mark.parametrize("lost", ["half", "a time", "all"])
def test_an_incomplete_log_is_refused_and_no_table_written(copied, phone, lost):
    assert on_phone(copied, str(phone / "benchmark_model")).returncode == 0
    (copied / "latency.json").unlink()
    log = copied / "android.log"
    text = log.read_text()
    parts = {"half": text[: len(text) // 2], "a time": text.replace("timings", "", 1), "all": "device: Pixel 9\n"}
    log.write_text(parts[lost])
    done = run(copied, "--from_android", "android.log")
    assert done.returncode == 1
    assert "doesn't hold the times of all networks" in done.stderr
    assert not (copied / "latency.json").exists()


def test_scripts_need_nothing_of_this_project(probe):
    source = (probe / "measure.py").read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    assert subprocess.run(["sh", "-n", str(probe / "measure_android.sh")]).returncode == 0


def test_the_script_runs_on_old_versions_of_python(probe):
    """Python 3.9 has no `strict` of `zip`."""
    calls = [node for node in ast.walk(ast.parse((probe / "measure.py").read_text())) if isinstance(node, ast.Call)]
    zips = [call for call in calls if getattr(call.func, "id", "") == "zip"]
    assert zips
    assert not any(call.keywords for call in zips)
