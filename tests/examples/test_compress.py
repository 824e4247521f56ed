"""The notebook, and the same as a program: they agree, what is kept of a run is fit to publish, and both run."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM, NOTEBOOK = ROOT / "examples" / "compress.py", ROOT / "examples" / "compress.ipynb"
#: Settings of a brief run.
BRIEF = {"TEACHER_EPOCHS, STUDENT_EPOCHS, PROPOSALS = 16, 16, 4": "TEACHER_EPOCHS, STUDENT_EPOCHS, PROPOSALS = 5, 1, 1"}
DEVICE = "student.cc"


def cells(kind: str) -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def shown(kind: str) -> list:
    """What all cells show, of a kind such as `text/plain`."""
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def printed() -> str:
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def briefly(program: str) -> str:
    for usual, brief in BRIEF.items():
        assert program.count(usual) == 1
        program = program.replace(usual, brief)
    return program


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("nbclient", reason="`make install` installs it")
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "tools" / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notebook_and_program_agree(tool):
    made = tool.to_notebook(PROGRAM.read_text()).cells
    kept = json.loads(NOTEBOOK.read_text())["cells"]
    assert [(cell.id, cell.cell_type, cell.source) for cell in made] == [
        (cell["id"], cell["cell_type"], "".join(cell["source"])) for cell in kept
    ], "run `make notebook`"


def test_it_has_ten_cells_each_with_a_heading():
    assert len(cells("code")) == 10
    headings = [re.match(r"## (\d+)\. ", "".join(cell["source"])) for cell in cells("markdown")[1:]]
    assert [int(heading[1]) for heading in headings] == [*range(1, 11)]


def test_what_is_kept_ran_without_errors_and_in_order():
    assert [cell["execution_count"] for cell in cells("code")] == [*range(1, 11)]
    assert {output["output_type"] for cell in cells("code") for output in cell["outputs"]} <= {"stream", "display_data"}
    images = [base64.b64decode(text) for text in shown("image/png")]
    assert len(images) == 4
    assert all(image.startswith(b"\x89PNG") for image in images)


def test_what_is_kept_is_small_and_says_nothing_of_the_machine():
    assert NOTEBOOK.stat().st_size < 300_000
    texts = printed() + "".join(map("".join, shown("text/plain"))) + "".join(map("".join, shown("text/html")))
    assert not re.search(r"(?:^|[\s'\"(])/\w|~/|\.partial|[A-Z]:\\", texts), texts
    assert "stderr" not in NOTEBOOK.read_text()


def test_what_is_kept_is_a_good_example():
    """The student has half of the cost, and its int8 file is about as accurate as the model and clearly faster."""
    text = printed()
    rows = re.findall(r"^(\w+), (\w+) +accuracy +([\d.]+)%  latency +([\d.]+) ms$", text, re.MULTILINE)
    accuracy, latency = ({row[:2]: float(row[place]) for row in rows} for place in (2, 3))
    assert len(rows) == 6
    assert accuracy["student", "int8"] > accuracy["model", "Keras"] - 2 > 90
    # Files of one network are too close to order on a busy machine.
    assert latency["student", "int8"] < 0.8 * latency["model", "fp32"]
    assert latency["student", "int8"] < 0.5 * latency["model", "Keras"]
    macs = [
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) MACs, [\d,]+ parameters$", text, re.MULTILINE)
    ]
    assert 0.45 < macs[1] / macs[0] <= 0.5


@pytest.mark.slow
def test_the_notebook_runs(tool, tmp_path):
    notebook = tool.run(tool.to_notebook(briefly(PROGRAM.read_text())), tmp_path)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    written = {path.name for path in (tmp_path / "compressed").iterdir()}
    assert written >= {"student.keras", "student_int8.tflite", "student_fp32.tflite", DEVICE, "student.h"}
    (table,) = (output.text for output in outputs if "latency" in output.get("text", ""))
    accuracy = {name: float(share) for name, share in re.findall(r"^(.+?) +accuracy +([\d.]+)%", table, re.MULTILINE)}
    assert accuracy["model, Keras"] > 50
    assert accuracy["student, int8"] > 50
    assert abs(accuracy["student, fp32"] - accuracy["student, Keras"]) < 0.5


@pytest.mark.slow
def test_the_program_runs(tmp_path):
    program = tmp_path / "compress.py"
    program.write_text(briefly(PROGRAM.read_text()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^student, int8 +accuracy", done.stdout, re.MULTILINE)
    assert (tmp_path / "compressed" / DEVICE).exists()
