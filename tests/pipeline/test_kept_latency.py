"""The last word on a budget in time: the deployed files, timed in turns."""

from types import SimpleNamespace

import pytest

from tas_tf.files import read_json, write_json
from tas_tf.latency.settings import LatencySettings
from tas_tf.pipeline import kept_latency
from tas_tf.pipeline.kept_latency import check_latency
from tas_tf.runs.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run(str(tmp_path))
    run.export_dir.mkdir()
    metrics = {"budget_kind": "latency", "budget_latency": 0.5, "latency_full_ms": 1.0}  # half of it
    metrics |= {"latency_format": "fp32", "latency_threads": 2}
    write_json(run.metrics("search"), metrics)
    return run


def check(run: Run, monkeypatch, *halves: list[float], formats=("fp32",), **settings) -> list[str]:
    timed, said = [], []
    monkeypatch.setattr(kept_latency, "time_files", lambda *arguments: timed.append(arguments) or halves)
    config = SimpleNamespace(run=run, latency=LatencySettings(**settings))
    check_latency(SimpleNamespace(config=config, say=lambda text, **style: said.append(text)), formats, run.export_dir)
    assert len(timed) == bool(halves)
    for files, threads in timed:
        assert [file.parent.name for file in files] == ["teacher", "export"]
        assert threads == 2
    return said


def test_a_budget_that_is_kept(run, monkeypatch):
    (said,) = check(run, monkeypatch, [2.0, 0.98], [2.0, 1.0])
    assert "takes 0.495 of the teacher's time (0.99 of 2 ms, fp32, threads: 2), the budget is 0.500 (0.5 ms)" in said
    found = read_json(run.latency_json)
    expected = {"share": 0.495, "noise": 0.01, "budget_share": 0.5, "budget_ms": 0.5, "teacher_ms": 2.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["kept"] is True


def test_a_budget_that_is_not_kept(run, monkeypatch):
    (said,) = check(run, monkeypatch, [2.0, 1.1], [2.0, 1.101])
    assert said.startswith("warning: latency: the student takes 0.550")
    assert read_json(run.latency_json)["kept"] is False


def test_noise_tells_nothing(run, monkeypatch):
    (said,) = check(run, monkeypatch, [2.0, 0.8], [2.0, 1.6])
    assert "too much to tell" in said
    assert read_json(run.latency_json)["kept"] is None


def test_a_format_that_is_not_there(run, monkeypatch):
    (said,) = check(run, monkeypatch, formats=("saved_model",))
    assert said.startswith("warning: latency: the budget wasn't checked, because no file is fp32")
    assert read_json(run.latency_json)["kept"] is None


def test_what_can_not_be_checked_here(run, monkeypatch):
    assert check(run, monkeypatch, table="pi.json") == []
    write_json(run.metrics("search"), {"budget_kind": "macs"})
    assert check(run, monkeypatch) == []
    assert not run.latency_json.exists()
