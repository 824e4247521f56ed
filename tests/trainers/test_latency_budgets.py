"""Budgets in time at the command line, on a clock that computes latencies."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from export import student as export_command
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.terms import mac_terms
from tas_tf.latency.measure import Target
from tas_tf.latency.table import LatencyTable
from tas_tf.pipeline import kept_latency
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_file
from tests.costs import Clock
from trainers import baseline, describe, pipeline, search

FURTHER = "budgets/latency_0.5"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


class Files:
    """Stands in for `time_files`: milliseconds of teacher and student in two halves."""

    def __init__(self) -> None:
        self.shares, self.timed = (0.3, 0.3), []

    def __call__(self, files: list[Path], threads: int) -> tuple[list[float], list[float]]:
        self.timed.append([str(file) for file in files])
        return tuple([1.0, share] for share in self.shares)


@pytest.fixture
def files(monkeypatch) -> Files:
    found = Files()
    monkeypatch.setattr(kept_latency, "time_files", found)
    return found


@pytest.fixture
def predictable(clock, monkeypatch) -> Clock:
    """A clock whose latencies follow the multiply-adds, so that predictions are good and the table is kept."""

    def cost(space: SearchSpace) -> CostModel:
        terms = [replace(term, factor=1000 * term.factor) for term in mac_terms(space)]
        return CostModel(space, "latency", terms=terms)

    monkeypatch.setattr(clock, "cost", cost)
    return clock


@pytest.fixture
def flags(tmp_path, trained_tiny, tiny_flags) -> list[str]:
    """Flags of a run with two budgets."""
    budgets = ["--budget=latency:0.7", "--budget=latency:0.5"]
    return [f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", *budgets, *tiny_flags]


@pytest.mark.slow
def test_from_the_description_to_files_that_were_timed(command, predictable, files, flags, trained_tiny, tmp_path):
    path, (_, _, *budgets) = tmp_path / "run", flags[:4]
    # Described first: later commands use the same measurements.
    described = command(describe, str(trained_tiny), *budgets, "--dataset=digits", "--json")
    assert described.code == 0, described.err
    limits = json.loads(described.out)["budgets"]
    timed = len(predictable.timed)

    files.shares = (0.3, 0.9)  # too noisy to tell
    run = [*flags, "--recipe=paper", "--rivals=uniform", "--formats=fp32"]
    outcome = command(pipeline, *run)
    assert outcome.code == 0, outcome.err
    assert len(predictable.timed) < timed + 20  # the table is known: single shapes alone
    assert "measured (" in outcome.out
    assert outcome.out.count("too noisy to tell. On a calmer machine") == 2
    for budget, folder in (("latency:0.7", path), ("latency:0.5", path / FURTHER)):
        found = read(folder / "search/metrics.json")
        assert found["shape_latency"] <= found["budget_latency"] == pytest.approx(limits[budget]["limit"])
        assert found["latency_predicted"] is False
        assert found["latency_timed"]
        assert (folder / "rivals/uniform/student/model.keras").is_file()
        assert read(folder / "report.json")["latency"]["kept"] is None

    files.shares, tried = (0.3, 0.31), len(files.timed)
    again = command(export_command, flags[0])
    assert again.code == 0, again.err
    assert len(files.timed) == tried + 2  # once for each budget
    assert "is up to date" not in again.out
    assert [read(folder / "export/latency.json")["kept"] for folder in (path, path / FURTHER)] == [True, True]
    assert command(export_command, flags[0]).out.count("is up to date") == 2

    other = [f"--run_dir={tmp_path / 'uniform'}", f"--teacher_from={path}", "--budget=latency:0.7"]
    made = command(baseline, *other, "--kind=uniform")
    assert made.code == 0, made.err
    found = read(tmp_path / "uniform/search/metrics.json")
    assert found["budget_kind"] == "latency"
    assert found["shape_latency"] <= found["budget_latency"]


def test_a_rival_that_cannot_be_fast_enough_is_refused_before_training(command, clock, flags, tmp_path):
    """Each layer takes most of its time for itself, so that narrow ones don't help."""
    outcome = command(pipeline, *flags, "--rivals=uniform", "--formats=fp32")
    assert outcome.code == 1
    assert outcome.err.startswith("error: `--rivals`: uniform can't keep latency:0.7. `--budget` is below what a shape")
    assert "uniform widths at their smallest, with all blocks, measured" in outcome.err
    assert outcome.err.endswith("Leave out such `--rivals`, or give a larger `--budget`.\n")
    assert not (tmp_path / "run/teacher").exists()


@pytest.mark.slow
def test_a_table_of_another_device_only_predicts(command, predictable, files, flags, trained_tiny, tmp_path):
    table = tmp_path / "latency.json"
    LatencyTable.measure(SearchSpace.from_model(load_file(trained_tiny)), Target()).save(table)
    timed = len(predictable.timed)
    outcome = command(search, *flags, "--recipe=paper", f"--latency_from={table}")
    assert outcome.code == 0, outcome.err
    assert len(predictable.timed) == timed
    assert " predicted (" in outcome.out
    assert " measured (" not in outcome.out
    assert read(tmp_path / "run/search/metrics.json")["latency_predicted"] is True
    assert not files.timed
