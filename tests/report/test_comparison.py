"""Several runs side by side: mean and spread over seeds, and rejected inputs."""

import hashlib
import io
import json
import math
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from tas_tf.errors import UserError
from tas_tf.report.comparison import Figure, cells, compare_runs, make_row, print_comparison, with_spread
from tas_tf.report.scores import SCORES
from tas_tf.runs.origins import hash_content
from tas_tf.runs.run import Run


def record(settings: dict, inputs: dict | None = None) -> str:
    """The record of a step as a run keeps it."""
    made_from = {"version": 1, "settings": settings, "inputs": inputs or {}}
    canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    return json.dumps({"digest": hashlib.sha256(canonical.encode()).hexdigest(), **made_from})


def write_run(folder: Path, *, seed: int, accuracy: float, step: str = "student", latency: float | None = None, **more):
    (folder / step).mkdir(parents=True)
    metrics = {"accuracy": accuracy, "macs": 14_000_000, "params": 100_000, "seconds": 10.0, "seed": seed, "kd": True}
    (folder / step / "metrics.json").write_text(json.dumps(metrics))
    (folder / step / "digest.json").write_text(record({"seed": seed, "lr": 0.1, **more}))
    (folder / step / "model.keras").write_text(f"{accuracy}")
    if latency is not None:
        (folder / "export").mkdir()
        made_from = {"student": hash_content(folder / "student/model.keras")}
        (folder / "export/digest.json").write_text(record({"threads": 1}, made_from))
        lite = {"latency_ms": latency, "bytes": 500_000}
        slow = {"latency_ms": 3.0, "bytes": 900_000}
        fast = {"latency_ms": latency / 2, "bytes": 200_000}
        exported = {"fp32": lite, "int8": fast, "teacher": {"fp32": slow, "int8": slow}}
        (folder / "export/metrics.json").write_text(json.dumps(exported))
    return folder


def test_runs_of_one_name_are_seeds_of_one_row(tmp_path):
    accuracies, latencies = (0.90, 0.91, 0.94), (1.0, 1.5, 2.0)
    runs = [
        write_run(tmp_path / f"{seed}/tas", seed=seed, accuracy=accuracy, latency=latency)
        for seed, (accuracy, latency) in enumerate(zip(accuracies, latencies, strict=True))
    ]
    runs.append(write_run(tmp_path / "0/teacher", seed=0, accuracy=0.95, step="teacher"))
    tas, teacher = compare_runs(runs)
    assert (tas.name, tas.seeds, tas.kd) == ("tas", (0, 1, 2), True)
    accuracy = tas.figures["accuracy"]
    assert accuracy.mean == pytest.approx(sum(accuracies) / 3)
    assert accuracy.spread == pytest.approx(statistics.stdev(accuracies))
    assert tas.figures["speedup"].mean == pytest.approx((3.0 + 2.0 + 1.5) / 3)
    assert cells(tas)[0] == "91.67 ± 2.08 %"
    assert cells(tas)[3:5] == ["500 kB", "1.5 ± 0.5 ms"]
    assert (teacher.name, teacher.kd, teacher.figures["accuracy"].spread) == ("teacher", None, None)
    assert cells(teacher) == ["95.00 %", "14 M", "100 k", "-", "-", "-"]
    json.dumps([tas.to_json(), teacher.to_json()])


def test_a_figure_that_a_seed_lacks_is_no_mean_of_the_others(tmp_path):
    runs = [
        write_run(tmp_path / "0/tas", seed=0, accuracy=0.9, latency=1.0),
        write_run(tmp_path / "1/tas", seed=1, accuracy=0.9),
    ]
    (row,) = compare_runs(runs)
    assert "latency_ms" not in row.figures
    assert row.figures["accuracy"].count == 2


def test_a_budget_in_time_compares_files_of_its_format(tmp_path):
    run = write_run(tmp_path / "tas", seed=0, accuracy=0.9, latency=1.0)
    assert compare_runs([run])[0].format == "fp32"
    (run / "export/latency.json").write_text(json.dumps({"format": "int8"}))
    (row,) = compare_runs([run])
    assert row.format == row.to_json()["format"] == "int8"
    assert (row.figures["latency_ms"].mean, row.figures["speedup"].mean) == (0.5, 6.0)
    console = Console(file=io.StringIO(), width=120)
    print_comparison([row], console)
    assert "int8" in console.file.getvalue()


def test_a_budget_in_time_on_a_device_compares_files_of_its_format(tmp_path):
    run = write_run(tmp_path / "tas", seed=0, accuracy=0.9, latency=1.0)
    (run / "search").mkdir()
    search = {"budget_kind": "latency", "latency_format": "qat_int8"}
    (run / "search/metrics.json").write_text(json.dumps(search))
    assert compare_runs([run])[0].format == "int8"  # which has the same operators
    (run / "search/metrics.json").write_text(json.dumps({**search, "budget_kind": "macs"}))
    assert compare_runs([run])[0].format == "fp32"


def keep_formats(run: Path, *formats: str) -> Path:
    """Leaves out the other formats of an exported run."""
    path = run / "export/metrics.json"
    exported = json.loads(path.read_text())
    teacher = {format: exported["teacher"][format] for format in formats}
    path.write_text(json.dumps({**{format: exported[format] for format in formats}, "teacher": teacher}))
    return run


def test_files_of_a_format_that_all_have_are_compared(tmp_path):
    names = ("both", "small", "large")
    both, small, large = (write_run(tmp_path / name, seed=0, accuracy=0.9, latency=1.0) for name in names)
    keep_formats(small, "int8")
    keep_formats(large, "fp32")
    untimed = write_run(tmp_path / "untimed", seed=0, accuracy=0.9)
    assert [row.format for row in compare_runs([both, large, untimed])] == ["fp32", "fp32", "fp32"]
    rows = compare_runs([both, small, untimed])
    assert [row.format for row in rows[:2]] == ["int8", "int8"]
    assert [row.figures["latency_ms"].mean for row in rows[:2]] == [0.5, 0.5]
    assert rows[0].teacher["bytes"].mean == 900_000
    mixed = compare_runs([both, small, large])
    assert [row.format for row in mixed] == ["fp32", "int8", "fp32"]
    for shown, told in ((rows, False), (mixed, True)):
        console = Console(file=io.StringIO(), width=120)
        print_comparison(shown, console)
        assert ("different formats: fp32, int8." in console.file.getvalue()) == told


def test_what_is_no_seed_of_the_same_is_refused(tmp_path):
    first = write_run(tmp_path / "0/tas", seed=0, accuracy=0.9)
    with pytest.raises(UserError, match="have the seeds 0, 0"):
        compare_runs([first, write_run(tmp_path / "1/tas", seed=0, accuracy=0.9)])
    with pytest.raises(UserError, match=r"differ in the settings `lr` \(student\)"):
        compare_runs([first, write_run(tmp_path / "2/tas", seed=2, accuracy=0.9, lr=0.3)])
    with pytest.raises(UserError, match="holds no trained teacher"):
        compare_runs([tmp_path / "none"])
    with pytest.raises(UserError, match="holds no trained student"):
        compare_runs([first, write_run(tmp_path / "3/tas", seed=3, accuracy=0.9, step="teacher")])


def test_a_step_that_one_run_borrowed_is_no_difference(tmp_path):
    """The second run uses the teacher of the first."""
    first = write_run(tmp_path / "0/tas", seed=0, accuracy=0.9)
    write_run(first, seed=0, accuracy=0.95, step="teacher")
    (row,) = compare_runs([first, write_run(tmp_path / "1/tas", seed=1, accuracy=0.9)])
    assert row.seeds == (0, 1)


def test_shapes_from_elsewhere_count_as_the_search_that_made_them(tmp_path):
    runs = []
    for seed, budget in ((0, "macs:0.5"), (1, "macs:0.3")):
        found = write_run(tmp_path / f"found{seed}", seed=seed, accuracy=0.5, step="search", budget=budget)
        runs.append(write_run(tmp_path / f"{seed}/tas", seed=seed, accuracy=0.9))
        metrics = runs[-1] / "student/metrics.json"
        shape = str(found / "search/shape.json")
        metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "shape": shape}))
    with pytest.raises(UserError, match=r"differ in the settings `budget` \(search\)"):
        compare_runs(runs)


def test_what_was_measured_of_an_earlier_student_is_left_out(tmp_path):
    run = write_run(tmp_path / "tas", seed=0, accuracy=0.9, latency=1.0)
    assert compare_runs([run])[0].figures["latency_ms"].mean == 1.0
    (run / "student/model.keras").write_text("trained again")
    assert "latency_ms" not in compare_runs([run])[0].figures


def test_the_teacher_in_another_folder_is_known_from_the_report(tmp_path):
    run = write_run(tmp_path / "tas", seed=0, accuracy=0.9, latency=1.0)
    student = json.loads((run / "student/metrics.json").read_text())
    teacher = {"accuracy": 0.95, "macs": 40_000_000, "params": 300_000}
    (run / "report.json").write_text(json.dumps({"teacher": teacher, "student": student}))
    (row,) = compare_runs([run])
    assert {name: figure.mean for name, figure in row.teacher.items()} == {
        **teacher,
        **{"bytes": 900_000, "latency_ms": 3.0},
    }
    # A report of an earlier student may be of another teacher's.
    (run / "report.json").write_text(json.dumps({"teacher": teacher, "student": {**student, "accuracy": 0.8}}))
    assert set(compare_runs([run])[0].teacher) == {"bytes", "latency_ms"}
    elsewhere = write_run(tmp_path / "other", seed=0, accuracy=0.97, step="teacher")
    row = make_row("tas", [Run(run)], Run(elsewhere))
    assert row.teacher["accuracy"].mean == 0.97


def test_scores_of_networks_and_of_files_are_not_mixed(tmp_path):
    run = write_run(tmp_path / "tas", seed=0, accuracy=0.9, latency=1.0)
    exported = json.loads((run / "export/metrics.json").read_text())
    exported["teacher"]["fp32"] |= {"metric": "accuracy", "score": 0.5}  # of 50 images
    (run / "export/metrics.json").write_text(json.dumps(exported))
    assert "accuracy" not in compare_runs([run])[0].teacher


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((-0.02, -0.04), "-3.00 ± 1.41 %"),
        ((0.02, 0.04), "3.00 ± 1.41 %"),
        ((math.nan, 0.5), "nan %"),
        ((math.inf, 0.5), "inf %"),
    ],
)
def test_means_of_all_signs_and_none(values, text):
    figure = Figure(statistics.fmean(values), statistics.stdev(values) if math.isfinite(sum(values)) else math.nan, 2)
    assert with_spread(figure, SCORES["r2"].written) == text
