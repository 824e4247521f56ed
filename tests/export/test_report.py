import doctest
import html.parser
import json
import subprocess
import sys

import pytest
from rich.console import Console

from export import formatting
from export.report import build_report, print_table, render_html, summarise_shape
from tas_tf.errors import UserError


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


class Page(html.parser.HTMLParser):
    """Collects what a page's structure promises."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.labels, self.headers = [], [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[key] for key in ("src", "href", "xlink:href") if key in attributes]
        self.labels += [attributes["aria-label"]] if attributes.get("role") == "img" else []
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


@pytest.mark.parametrize("missing", [None, *PIECES])
def test_any_piece_may_be_missing(tmp_path, missing):
    report = build_report(**({} if missing is None else {k: v for k, v in PIECES.items() if k != missing}))
    json.dumps(report, allow_nan=False)
    Page(render_html(report, tmp_path / "report.html").read_text())
    print_table(report, console=Console(file=(tmp_path / "table.txt").open("w"), width=120))


def test_reserved_rival_names():
    with pytest.raises(UserError, match="history"):
        build_report(rivals={"history": {}})


def test_page_is_self_contained_and_accessible(tmp_path):
    text = render_html(build_report(**PIECES), tmp_path / "sub" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "url(http" not in text
    assert len(page.labels) == 5
    assert any("stage_1 2 of 3" in label for label in page.labels)
    assert page.headers > 10
    for shown in ("2.5x", "-1.00", "1.5x", "40 M", "16 M", "stem", "macs:0.5", "export/fp32.tflite"):
        assert shown in text
    assert "#010101" not in text
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["report.html"]


def test_page_escapes_what_users_named(tmp_path):
    shape = {"units": [{"name": "<b>&", "width": 4, "kept": 2, "dropped": False}], "stages": []}
    report = build_report(rivals={"<script>x": {"accuracy": 0.5, "macs": 1, "params": 1}}, shape=shape, command="a<b")
    text = render_html(report, tmp_path / "report.html").read_text()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_table(tmp_path):
    path = tmp_path / "table.txt"
    with path.open("w") as file:
        print_table(build_report(**PIECES), console=Console(file=file, width=140))
    lines = path.read_text().splitlines()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (x.split("│") for x in lines if "│" in x)
    }
    assert rows["test accuracy"] == ["98.00 %", "97.00 %", "94.00 %"]
    assert rows["MACs"] == ["40 M", "16 M", "15.9 M"]
    assert rows["fp32.tflite size"] == ["1.2 MB", "400 kB", "410 kB"]
    assert rows["fp32.tflite latency"] == ["1.5 ms ± 0.1", "1 ms ± 0.1", "1.1 ms ± 0.1"]
    assert rows["SavedModel size"] == ["1.3 MB", "500 kB", "-"]
    assert "student, fp32: export/fp32.tflite" in lines


def test_summarise_shape():
    units = [{"name": "a", "width": 16, "candidates": [4, 16]}, {"name": "b", "width": 32}]
    stages = [{"name": "stage_1", "blocks": 3}, {"name": "stage_2", "blocks": ["x", "y"]}]
    summary = summarise_shape(
        units, stages, {"widths": {"a": 4, "b": 32}, "depths": {"stage_1": 2}}, dropped_units=["b"]
    )
    assert summary["units"] == [
        {"name": "a", "width": 16, "kept": 4, "dropped": False},
        {"name": "b", "width": 32, "kept": 32, "dropped": True},
    ]
    assert summary["stages"] == [
        {"name": "stage_1", "blocks": 3, "kept": 2},
        {"name": "stage_2", "blocks": 2, "kept": 2},
    ]


def test_report_needs_no_tensorflow():
    code = "import sys; import export.report; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_formatting_examples():
    assert doctest.testmod(formatting).failed == 0
