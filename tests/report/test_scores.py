"""Reports on networks whose score isn't the accuracy."""

import io

import pytest
from rich.console import Console

from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.regression import Regression
from tas_tf.report.comparison import compare_runs, print_comparison
from tas_tf.report.page import render_html
from tas_tf.report.report import build_report
from tas_tf.report.scores import SCORES
from tas_tf.report.show import comparison_rows, headline, print_table, search_facts
from tests.report.test_comparison import write_run
from tests.report.test_report import PIECES


def artefact(value: float, **more) -> dict:
    return {"metric": "mae", "score": value, "accuracy": None, "bytes": 1000, "latency_ms": 0.5, **more}


def values_report() -> dict:
    counts = {"metric": "mae", "task": "regression", "macs": 2e6, "params": 1e3}
    return build_report(
        teacher={**counts, "mae": 2.0, "rmse": 3.0, "r2": 0.9},
        student={**counts, "mae": 2.5, "rmse": 3.5, "r2": 0.8},
        search={"held_out_mae": 2.75},
        export={"int8": artefact(2.625), "teacher": {"int8": artefact(2.0)}},
        qat={"student": {"float_mae": 2.375}},
        history={"held_out_mae": [3.0, 2.75]},
    )


@pytest.mark.parametrize(
    "objective", [Classification(3), Classification(3, (4, 4)), Binary(1), Multilabel(2), Regression(1)], ids=str
)
def test_every_score_that_counts_has_a_name_and_a_direction(objective):
    assert SCORES[objective.metric].is_error is not objective.higher_is_better


def test_errors_are_written_as_errors():
    found = values_report()
    assert found["metric"] == "mae"
    assert found["comparison"]["score_change"] == 0.5
    assert found["comparison"]["accuracy_change"] is None
    rows = dict(comparison_rows(found))
    assert rows["test mean absolute error (less is better)"] == ["2", "2.5"]
    assert rows["root mean squared error"] == ["3", "3.5"]
    assert rows["share of variance explained"] == ["90.00 %", "80.00 %"]
    assert rows["int8.tflite mean absolute error"] == ["2", "2.625"]
    assert rows["float control, fine-tuned for as long (whole test set)"] == ["-", "2.375"]
    assert headline(found)[1] == ("+0.5", "change of test mean absolute error (less is better)", "2 → 2.5")
    assert ("held-out mean absolute error (less is better) at the end of the search", "2.75") in search_facts(found)


def test_nothing_is_called_accuracy(tmp_path):
    console = Console(file=io.StringIO(), width=160)
    print_table(values_report(), console=console)
    page = render_html(values_report(), tmp_path / "report.html").read_text()
    for text in (console.file.getvalue(), page):
        assert "ccuracy" not in text
        assert "percent" not in text.replace("percentile", "")
    assert "Mean absolute error and cost" in page
    assert "Lower and further left is better" in page
    assert "Mean absolute error during the search" in page
    assert "Held-out mean absolute error of the decoded shape by epoch; 2.75 in the last epoch." in page


def test_pixels_have_both_scores():
    counts = {"metric": "mean_iou", "mean_iou": 0.5, "accuracy": 0.9, "macs": 2e6, "params": 1e3}
    rows = dict(comparison_rows(build_report(teacher=counts, student=counts)))
    assert rows["test mean IoU"] == ["50.00 %", "50.00 %"]
    assert rows["accuracy"] == ["90.00 %", "90.00 %"]


def test_runs_of_several_tasks_have_a_column_each(tmp_path):
    first = write_run(tmp_path / "photos", seed=0, accuracy=0.9)
    second = write_run(tmp_path / "ages", seed=0, accuracy=0.9)
    metrics = '{"metric": "mae", "mae": 3.25, "macs": 1, "params": 1, "seconds": 1.0, "seed": 0, "kd": true}'
    (second / "student/metrics.json").write_text(metrics)
    rows = compare_runs([first, second])
    assert (rows[1].metric, rows[1].to_json()["mae"]["mean"]) == ("mae", 3.25)
    console = Console(file=io.StringIO(), width=200)
    print_comparison(rows, console)
    lines = console.file.getvalue().splitlines()
    assert "test accuracy ┃ test mean absolute error (less is better)" in next(line for line in lines if "KD" in line)
    assert [line.split("│")[5].strip() for line in lines if "photos" in line or "ages" in line] == ["90.00 %", "-"]
    assert [line.split("│")[6].strip() for line in lines if "photos" in line or "ages" in line] == ["-", "3.25"]


def test_without_the_format_that_counts_the_first_one_is_in_the_headline():
    file = {"bytes": 1000, "latency_ms": 0.5}
    found = build_report(
        teacher={"accuracy": 0.9, "macs": 2},
        student={"accuracy": 0.9, "macs": 1},
        export={"int8": file, "teacher": {"int8": {**file, "latency_ms": 1.0}}},
    )
    assert [tile[:2] for tile in headline(found)[2:]] == [
        ("2x", "measured speed, int8 TFLite"),
        ("1x", "smaller int8 TFLite file"),
    ]


def test_facts_tell_a_race_from_a_single_shape():
    def facts(*names: str, laps: list) -> dict[str, str]:
        raced = {"proposal": "uniform", "rate_factor": 0.5, "proposals": {name: {} for name in names}, "laps": laps}
        return dict(search_facts(build_report(**{**PIECES, "search": {**raced, "held_out_accuracy": 0.5}})))

    raced, alone = facts("uniform", "late", laps=[{}]), facts("uniform", laps=[{}])
    assert raced["winner of the race"] == "uniform of 2 shapes"
    assert raced["held-out accuracy after the race"] == "50.00 %"
    assert alone["shape"] == "uniform (no race: one shape)"
    assert alone["held-out accuracy after the brief training"] == "50.00 %"
    assert not any("held-out" in label for label in facts("uniform", laps=[]))
