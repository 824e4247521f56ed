import doctest
import html.parser
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from tas_tf.report import formatting
from tas_tf.report.page import render_html
from tas_tf.report.report import build_report
from tas_tf.report.show import print_table
from tests.parts import slow_except


def artefact(size, latency, accuracy):
    return {
        "accuracy": accuracy,
        "agreement": 0.99,
        "bytes": size,
        "latency_ms": latency,
        "latency_spread_ms": 0.2,
        "max_abs_diff": 1e-6,
    }


PIECES = {
    "teacher": {"accuracy": 0.98, "macs": 40_000_000, "params": 270_000, "epochs": 3},
    "student": {"accuracy": 0.97, "macs": 16_000_000, "params": 90_000},
    "search": {"budget_macs": 20_000_000, "width_entropy": 0.7, "held_out_accuracy": 0.95},
    "export": {
        "saved_model": artefact(500_000, 2.0, 0.97),
        "fp32": artefact(400_000, 1.0, 0.97),
        "teacher": {"saved_model": artefact(1_300_000, 3.0, 0.98), "fp32": artefact(1_200_000, 1.5, 0.98)},
        "random": {"fp32": artefact(410_000, 1.1, 0.94)},
    },
    "rivals": {"random": {"accuracy": 0.94, "macs": 15_900_000, "params": 91_000}},
    "shape": {
        "units": [
            {"name": "stem", "width": 16, "kept": 8, "dropped": False},
            {"name": "late", "width": 32, "kept": 20, "dropped": True},
        ],
        "stages": [{"name": "stage_1", "blocks": 3, "kept": 2}],
    },
    "history": {
        "expected_macs": [30e6, float("nan"), 19e6],
        "argmax_macs": [28e6, 22e6, 18e6],
        "held_out_accuracy": [0.3, 0.8, 0.95],
    },
    "budget": "macs:0.5",
    "seed": 0,
    "settings": {"epochs": 3},
    "command": "python -m trainers.pipeline --flagfile=flags/digits.cfg",
    "files": {"student": "student/model.keras", "student, fp32": "export/fp32.tflite"},
}


#: As in `metrics.json`: the most expensive first.
TEACHER_OPERATORS = [
    {"name": "Convolution (NHWC, F32) IGEMM", "count": 9, "milliseconds": 1.25, "share": 0.9},
    {"name": "Add <ND>", "count": 3, "milliseconds": 0.14, "share": 0.1},
]
STUDENT_OPERATORS = [
    {"name": "Convolution (NHWC, F32) IGEMM", "count": 6, "milliseconds": 0.7, "share": 0.7},
    {"name": "Add <ND>", "count": 3, "milliseconds": 0.3, "share": 0.3},
]


def all_formats():
    """The pieces with formats that are faster than the teacher, as fast as the multiply-adds promise, and slower."""
    latencies = {"fp32": 1.0, "fp16": 0.5, "dynamic": None, "int8": 0.6, "qat_int8": 0.61}
    own = {format: artefact(100_000, latency, 0.96) for format, latency in latencies.items()}
    others = {format: artefact(400_000, 1.5, 0.98) for format in latencies}
    own["fp32"]["operators"], others["fp32"]["operators"] = STUDENT_OPERATORS, TEACHER_OPERATORS
    own["int8"]["operators"] = None
    return {**PIECES, "export": {**own, "teacher": others}, "rivals": {}}


def print_lines(report, path, width=160):
    """Prints the report; returns all lines, and the cells of table rows by their first cell."""
    with path.open("w") as file:
        print_table(report, console=Console(file=file, width=width))
    lines = path.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    return lines, {row[0]: row[1:] for row in rows}


class Page(html.parser.HTMLParser):
    """Collects the elements of a page and checks its structure."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.labels, self.points, self.headers = [], [], [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[key] for key in ("src", "href", "xlink:href") if key in attributes]
        if attributes.get("role") == "img":
            (self.points if "data-details" in attributes else self.labels).append(attributes["aria-label"])
        self.headers += tag == "th" and "scope" in attributes

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_of_everything():
    report = build_report(**PIECES)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for name in ("teacher", "student", "random"):
        assert {"accuracy", "macs", "params", "tflite"} <= set(report[name])
        assert set(report[name]["tflite"]) == {"fp32"}
    assert report["student"]["tflite"]["fp32"]["bytes"] == 400_000
    assert report["teacher"]["saved_model"]["latency_ms"] == 3.0
    assert report["teacher"]["epochs"] == 3
    assert report["rivals"] == ["random"]
    assert report["history"]["expected_macs"] == [30e6, None, 19e6]
    comparison = report["comparison"]
    assert comparison["macs_reduction"] == 2.5
    assert comparison["params_reduction"] == 3.0
    assert comparison["accuracy_change"] == pytest.approx(-0.01)
    assert comparison["speedup"] == {"fp32": 1.5}
    assert comparison["size_reduction"] == {"fp32": 3.0}
    assert {"python", "tensorflow", "keras"} <= set(report["versions"])


@pytest.mark.parametrize(
    "missing", slow_except([None, *PIECES], [None, "teacher", "search", "export", "rivals", "budget", "settings"])
)
def test_any_piece_may_be_missing(tmp_path, missing):
    report = build_report(**({} if missing is None else {k: v for k, v in PIECES.items() if k != missing}))
    json.dumps(report, allow_nan=False)
    Page(render_html(report, tmp_path / "report.html").read_text())
    print_table(report, console=Console(file=io.StringIO(), width=120))


def test_page_is_self_contained_and_accessible(tmp_path):
    text = render_html(build_report(**PIECES), tmp_path / "sub" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link == "data:," or (link[0] == "#" and link[1:] in page.ids) for link in page.links)
    assert "url(http" not in text
    assert len(page.labels) == 4
    assert len(page.points) == 3 + 3  # files and networks
    assert "random, fp32: latency 1.1 ms, accuracy 94.00 %, size 410 kB" in page.points
    assert any("stage_1 2 of 3" in label for label in page.labels)
    assert page.headers > 10
    for shown in ("2.5x", "-1.00", "1.5x", "40 M", "16 M", "stem", "macs:0.5", "export/fp32.tflite"):
        assert shown in text
    assert "#010101" not in text
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["report.html"]


def test_a_race_is_drawn(tmp_path):
    def lap(proposal: str, number: int, loss: float, rate_factor: float = 0.5) -> dict:
        return {"proposal": proposal, "round": number, "rate_factor": rate_factor, "loss": loss, "accuracy": 0.5}

    laps = [lap("uniform", 1, 0.9, 1.0), lap("uniform", 1, 0.8), lap("late", 1, 0.7), lap("early", 1, 0.75)]
    search = {
        "budget_kind": "macs",
        "budget_macs": 20e6,
        "proposal": "early",
        "rate_factor": 0.5,
        "proposals": {"uniform": {}, "late": {}, "early": {}},
        "laps": [*laps, lap("early", 2, 0.5), lap("late", 2, 0.6)],
    }
    text = render_html(build_report(**{**PIECES, "search": search}), tmp_path / "report.html").read_text()
    (label,) = [label for label in Page(text).labels if "of the race" in label]
    assert "which early won" in label
    assert "uniform 0.800 in round 1, late 0.600 in round 2, early 0.500 in round 2" in label
    assert "early of 3 shapes" in text
    assert "entropy" not in text


def test_page_escapes_what_users_named(tmp_path):
    shape = {"units": [{"name": "<b>&", "width": 4, "kept": 2, "dropped": False}], "stages": []}
    report = build_report(rivals={"<script>x": {"accuracy": 0.5, "macs": 1, "params": 1}}, shape=shape, command="a<b")
    text = render_html(report, tmp_path / "report.html").read_text()
    assert "<script>x" not in text
    assert text.count("<script") == 1
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_table(tmp_path):
    lines, rows = print_lines(build_report(**PIECES), tmp_path / "table.txt", width=140)
    assert rows["test accuracy"] == ["98.00 %", "97.00 %", "94.00 %"]
    assert rows["MACs"] == ["40 M", "16 M", "15.9 M"]
    assert rows["fp32.tflite size"] == ["1.2 MB", "400 kB", "410 kB"]
    assert rows["fp32.tflite latency"] == ["1.5 ms ± 0.1", "1 ms ± 0.1", "1.1 ms ± 0.1"]
    assert rows["SavedModel size"] == ["1.3 MB", "500 kB", "-"]
    assert "student, fp32: export/fp32.tflite" in lines


def test_speed_table_stands_below_and_says_what_takes_the_time(tmp_path):
    lines, rows = print_lines(build_report(**all_formats()), tmp_path / "table.txt")
    assert rows["fp32.tflite"] == ["1.5x", "2.5x", "4x"]
    assert rows["fp16.tflite"] == ["3x", "2.5x", "4x"]
    assert rows["dynamic.tflite"] == ["-", "2.5x", "4x"]
    assert rows["int8.tflite"] == ["2.5x", "2.5x", "4x"]
    assert rows["qat_int8.tflite"] == ["2.46x", "2.5x", "4x"]
    titles = [
        number for number, line in enumerate(lines) if line.strip() in ("Test set results", "Student against teacher")
    ]
    assert len(titles) == 2
    # A line for each format that differs.
    explained, other = [line for line in lines if line.partition(": ")[0] in all_formats()["export"]["teacher"]]
    assert explained.startswith("fp32: 1.5x")
    assert other.startswith("fp16: 3x faster with 2.5x fewer MACs.")
    assert "Convolution (NHWC, F32) IGEMM 0.7 ms (teacher 1.25 ms)" in explained
    assert lines.index(explained) > titles[1]
    assert "Add <ND> 0.3 ms (teacher 0.14 ms)" in explained


def test_no_speed_table_without_a_teacher_to_compare_with(tmp_path):
    alone = {**PIECES, "export": {"fp32": artefact(1, 1.0, 0.9)}}
    for report in (build_report(), build_report(**alone)):
        lines, _ = print_lines(report, tmp_path / "table.txt")
        assert not any("Student against teacher" in line for line in lines)
        assert 'id="speed"' not in render_html(report, tmp_path / "report.html").read_text()


CONTROL = "float control, fine-tuned for as long (whole test set)"


def test_the_float_control_is_a_row_of_its_own(tmp_path):
    qat = {
        "student": {"accuracy": 0.968, "float_accuracy": 0.9731, "epochs": 10},
        "teacher": {"accuracy": 0.979, "epochs": 10},
    }
    report = build_report(**all_formats(), qat=qat)
    assert json.loads(json.dumps(report)) == report
    assert report["student"]["qat"] == qat["student"]
    assert report["teacher"]["qat"]["accuracy"] == 0.979
    assert print_lines(report, tmp_path / "table.txt")[1][CONTROL] == ["-", "97.31 %"]
    text = render_html(report, tmp_path / "report.html").read_text()
    assert CONTROL in text
    assert "97.31\xa0%" in text


@pytest.mark.parametrize("qat", [None, {}, {"student": {"accuracy": 0.968, "epochs": 10}}])
def test_no_row_where_no_control_was_trained(tmp_path, qat):
    report = build_report(**PIECES, qat=qat)
    assert CONTROL not in print_lines(report, tmp_path / "table.txt")[1]
    assert CONTROL not in render_html(report, tmp_path / "report.html").read_text()
    assert report["random"]["qat"] is None


def test_a_rivals_control_stands_in_its_column(tmp_path):
    report = build_report(**PIECES, qat={"random": {"float_accuracy": 0.9444}})
    assert print_lines(report, tmp_path / "table.txt")[1][CONTROL] == ["-", "-", "94.44 %"]


def test_page_shows_speed_and_operators(tmp_path):
    text = render_html(build_report(**all_formats()), tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert '<h2 id="speed">' in text
    for format in ("fp32", "fp16", "dynamic", "int8", "qat_int8"):
        assert f'<th scope="row">{format}.tflite</th>' in text
    # Operators where the speed-up falls short, and nowhere else.
    assert text.count("What takes the time of") == 1
    assert "What takes the time of fp32.tflite" in text
    assert "Add &lt;ND&gt;" in text
    assert "<ND>" not in text
    for shown in ("1.25 ms", "0.7 ms", "70 %", "30 %", "2.46x"):
        assert shown in text


def test_page_of_a_slow_format_without_a_profile(tmp_path):
    pieces = all_formats()
    pieces["export"]["fp32"]["operators"] = None
    text = render_html(build_report(**pieces), tmp_path / "report.html").read_text()
    assert "What takes the time of fp32.tflite" in text
    assert "no profile" in text
    assert Page(text).open == []


def test_speed_ups_are_drawn_once_there_are_two(tmp_path):
    def labels(report):
        return Page(render_html(report, tmp_path / "report.html").read_text()).labels

    shown = labels(build_report(**all_formats()))
    assert len(shown) == 5
    (label,) = [label for label in shown if "faster than the teacher" in label]
    # `dynamic` has no latency.
    assert "fp32 1.50, fp16 3.00, int8 2.50, qat_int8 2.46;" in label
    assert "2.50 times fewer" in label
    assert not any("faster than the teacher" in label for label in labels(build_report(**PIECES)))

    unknown = {**all_formats(), "teacher": {"accuracy": 0.98}}
    (label,) = [label for label in labels(build_report(**unknown)) if "faster than the teacher" in label]
    assert "fewer" not in label


def test_report_needs_no_tensorflow():
    modules = "tas_tf.report.show, tas_tf.report.page"
    code = f"import sys; import {modules}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_formatting_examples():
    assert doctest.testmod(formatting).failed == 0


def test_unbalanced_classes_and_decisions_have_further_scores(tmp_path):
    assert build_report(**PIECES)["metric"] == "accuracy"
    teacher, student = PIECES["teacher"], PIECES["student"]
    alike = {**PIECES, "teacher": {**teacher, "balanced_accuracy": 0.979}}
    assert not any("balanced" in line for line in print_lines(build_report(**alike), tmp_path / "out")[0])
    pieces = {
        **PIECES,
        "teacher": {**teacher, "balanced_accuracy": 0.6123, "roc_auc": 0.91},
        "student": {**student, "balanced_accuracy": 0.9712, "metric": "accuracy"},
    }
    _, rows = print_lines(build_report(**pieces), tmp_path / "out")
    assert rows["balanced accuracy (mean over classes)"][:2] == ["61.23 %", "97.12 %"]
    assert rows["area under the ROC curve"][:2] == ["91.00 %", "-"]
    render_html(build_report(**pieces), tmp_path / "report.html")
    assert "61.23" in (tmp_path / "report.html").read_text()
