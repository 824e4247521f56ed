"""What a report says about a budget in time."""

import pytest

from tas_tf.report.latencies import Prediction, latency_lines, predictions, verdict
from tas_tf.report.page import render_html
from tas_tf.report.plot import plots_of
from tas_tf.report.report import build_report
from tas_tf.report.show import comparison_rows, headline, search_facts
from tests.report.test_report import Page, all_formats, artefact

SEARCH = {
    **{"budget_kind": "latency", "budget_latency": 1.5, "latency_device": "abacus", "latency_format": "int8"},
    **{"latency_threads": 2, "latency_full_ms": 3.0, "latency_noise": 0.004, "shape_latency_ratio": 0.49},
    "latency_timed": [{"predicted": 0.5, "measured": 0.52}, {"predicted": 0.48, "measured": 0.49}],
    "latency_error": {"mean": 0.012, "worst": 0.04},
}
KEPT = {"share": 0.495, "noise": 0.01, "budget_share": 0.5, "kept": True, "format": "int8"}
#: What is known of a device where the student was timed.
THERE = {**KEPT, "device": "a board", "predicted_share": 0.49, "teacher_ms": 8.0, "student_ms": 3.96}
#: Proposals of a race, all measured.
RACE = {
    **{"proposal": "late", "rate_factor": 1.0, "laps": []},
    "proposals": {
        "late": {"latency": 1.44, "measured": 1.47, "depths": [1]},
        "uniform": {"latency": 1.5, "measured": 1.56, "depths": [2]},
    },
}


def report_of(latency=KEPT, **search) -> dict:
    pieces = all_formats()
    pieces["rivals"] = {"uniform": {"accuracy": 0.94, "macs": 15_900_000, "params": 91_000}}
    pieces["export"]["uniform"] = {"int8": artefact(410_000, 0.9, 0.94)}
    return build_report(**{**pieces, "search": {**SEARCH, **search}, "latency": latency, "budget": "latency:0.5"})


def test_shapes_have_names_where_a_race_knows_them():
    assert predictions(report_of()) == [
        Prediction("shape 1", 0.5, 0.52),
        Prediction("shape 2", 0.48, 0.49),
        Prediction("student", 0.48, 0.495),
    ]
    raced = [(one.name, round(one.predicted, 6), round(one.measured, 6)) for one in predictions(report_of(**RACE))]
    assert raced == [("late", 0.48, 0.49), ("uniform", 0.5, 0.52), ("student", 0.48, 0.495)]


def test_on_another_device_the_students_prediction_is_without_the_error():
    (student,) = predictions(report_of(THERE))
    assert (student.name, student.measured) == ("student", 0.495)
    assert student.predicted == pytest.approx(0.49 / 1.012)


def test_budgets_of_other_kinds_have_no_predictions():
    assert predictions(build_report(**all_formats())) == []
    assert latency_lines(build_report(**all_formats())) == []


@pytest.mark.parametrize(
    ("latency", "text"),
    [
        (None, "not checked: no file was timed"),
        (KEPT, "kept"),
        ({**KEPT, "kept": False}, "not kept"),
        ({**KEPT, "kept": None}, "too noisy to tell"),
        ({"format": "int8", "kept": None}, "not checked: no file is int8"),
        ({"format": "int8", "kept": None, "device": "a board"}, "not checked there yet"),
    ],
)
def test_verdicts(latency, text):
    assert verdict(latency) == text


def test_the_terminal_has_the_verdict_and_what_is_next():
    (line,) = latency_lines(report_of())
    assert line == (
        "budget latency:0.5: kept; the student takes 49.50 % ± 0.50 of the teacher's time (int8), at most 50.00 % is "
        "allowed"
    )
    line, following = latency_lines(report_of({**THERE, "kept": False, "next": "a command"}))
    assert "not kept; the student takes 49.50 % ± 0.50 of the teacher's time on a board (int8)" in line
    assert following == "next: a command"


def test_rivals_have_a_verdict_too():
    rows = dict(comparison_rows(report_of()))
    cells = rows["int8.tflite latency, share of teacher's (budget 50.00 %)"]
    assert cells == ["100.00 %", "49.50 %, kept", "60.00 %, over"]
    assert not any("share of teacher's" in label for label, _ in comparison_rows(report_of(THERE)))


def test_the_plot_has_the_budget_where_this_machine_was_measured():
    latency, cost = plots_of(report_of())
    assert latency.limit == (0.75, "budget of int8 files: 0.75 ms")  # half of the teacher's 1.5 ms
    place, _ = latency.placed_limit
    assert 0 < place < 100
    assert cost.limit is None
    latency, _ = plots_of(report_of(THERE))
    assert latency.limit is None
    assert latency.x_label == "latency of one image on this machine, not the device of the budget, milliseconds"


def test_the_headline_names_the_device():
    speeds = [
        next(tile for tile in headline(report_of(latency)) if "speed" in tile[1])
        for latency in (KEPT, {"device": "a board", "kept": None, "format": "int8"}, THERE)
    ]
    assert speeds[0][:2] == ("2.5x", "measured speed, int8 TFLite")
    assert speeds[1][:2] == ("2.5x", "measured speed, int8 TFLite, on this machine, not the device of the budget")
    assert speeds[2] == ("2.02x", "measured speed, int8 TFLite, on a board", "8 ms → 3.96 ms")


def test_facts_tell_all_that_was_measured():
    facts = dict(search_facts(report_of({**THERE, "kept": None, "next": "copy it"})))
    assert facts["latency measured on"] == "abacus, int8, threads: 2"
    assert facts["noise of measurements there"] == "0.40 %"
    assert facts["error of predicted latency"] == "1.20 % on average, 4.00 % at most"
    assert facts["student's time in turns with the teacher"] == "49.50 % ± 0.50 on a board"
    assert facts["budget in time kept"] == "too noisy to tell"
    assert facts["what is left to do"] == "copy it"


def test_a_page_shows_all_of_it(tmp_path):
    page = Page((render_html(report_of(**RACE), tmp_path / "report.html")).read_text())
    assert any("late 48.0 and 49.0, uniform 50.0 and 52.0, student 48.0 and 49.5" in label for label in page.labels)
    assert page.open == []
    text = (tmp_path / "report.html").read_text()
    for shown in ("1.5 ms", "-3.8 %", "budget of int8 files: 0.75 ms", "49.50 %, kept"):
        assert shown in text.replace("\N{NO-BREAK SPACE}", " ")
    # Without the file that is timed in the end, and of earlier versions.
    render_html(report_of({"kept": None}), tmp_path / "other.html")
    old = {"budget_kind": "latency", "budget_latency": 1.5}
    render_html(build_report(**{**all_formats(), "search": old}), tmp_path / "old.html")
