"""The last word on a budget in time: the deployed files, timed in turns."""

from types import SimpleNamespace

import pytest

from tas_tf.cli.wording import translate
from tas_tf.cost.budget import Budget
from tas_tf.files import read_json, write_json
from tas_tf.latency.settings import LatencySettings
from tas_tf.pipeline import kept_latency
from tas_tf.pipeline.kept_latency import check_latency, is_undecided
from tas_tf.runs.config import RunConfig
from tas_tf.runs.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run(str(tmp_path))
    run.export_dir.mkdir()
    metrics = {"budget_kind": "latency", "budget_latency": 0.5, "latency_full_ms": 1.0}  # half of it
    metrics |= {"latency_format": "fp32", "latency_threads": 2}
    write_json(run.metrics("search"), metrics)
    return run


def check(run: Run, monkeypatch, *measurements, formats=("fp32",), budgets=("latency:0.5",), **more) -> list[str]:
    """What is said of measurements, each of two halves: milliseconds of teacher and student."""
    left, said = list(measurements), []

    def time_files(files, threads):
        assert [file.parent.name for file in files] == ["teacher", "export"]
        assert threads == 2
        return left.pop(0)

    monkeypatch.setattr(kept_latency, "time_files", time_files)
    settings = {name: more.pop(name) for name in ("table", "file_format") if name in more}
    config = RunConfig(
        run_dir=str(run.path),
        budgets=tuple(map(Budget.parse, budgets)),
        latency=LatencySettings(**settings),
        **more,
    )
    workspace = SimpleNamespace(config=config, say=lambda text, **style: said.append(text))
    check_latency(workspace, formats, run.export_dir, run.export_dir)
    assert not left
    assert is_undecided(workspace) is (bool(measurements) and read_json(run.latency_json)["kept"] is None)
    return said


CALM, NOISY, OVER = ([2.0, 0.98], [2.0, 1.0]), ([2.0, 0.8], [2.0, 1.6]), ([2.0, 1.1], [2.0, 1.101])


def test_a_budget_that_is_kept(run, monkeypatch):
    (said,) = check(run, monkeypatch, CALM)
    assert "takes 0.495 of the teacher's time (0.99 of 2 ms, fp32, threads: 2; two" in said
    assert said.endswith("differ by 0.010), the budget is 0.500 (0.5 ms).")
    found = read_json(run.latency_json)
    expected = {"share": 0.495, "noise": 0.01, "budget_share": 0.5, "budget_ms": 0.5, "teacher_ms": 2.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["kept"] is True


def test_a_budget_that_is_not_kept_is_measured_again_and_the_next_command_said(run, monkeypatch):
    (said,) = check(run, monkeypatch, OVER, OVER, OVER, budgets=("latency:0.5", "macs:0.2"))
    assert said.startswith("warning: latency: the student takes 0.550")
    assert "run `pipeline` as before, but with `budget`=latency:0.45 `budget`=macs:0.2 `overwrite`." in said
    assert "but with `--budget=latency:0.45` `--budget=macs:0.2` `--overwrite`." in translate(said)
    assert read_json(run.latency_json)["kept"] is False


def test_the_next_command_of_a_baseline(run, monkeypatch):
    step = run.step("search", settings={"kind": "l1"}, outputs=[run.metrics("search")])
    metrics = read_json(run.metrics("search"))
    step.begin(overwrite=True)
    write_json(run.metrics("search"), metrics)
    step.finish()
    (said,) = check(run, monkeypatch, OVER, OVER, OVER)
    assert "run `baseline` as before, but with `budget`=latency:0.45 `overwrite`, then run `distill` and" in said


def test_a_tiny_budget_is_written_as_a_user_may_give_it(run, monkeypatch):
    write_json(run.metrics("search"), {**read_json(run.metrics("search")), "budget_latency": 0.0001})
    slow = [2.0, 0.002]
    (said,) = check(run, monkeypatch, *[(slow, slow)] * 3, budgets=("latency:0.0001",))
    assert "`budget`=latency:0.0000099 " in said
    assert str(Budget.parse("latency:0.0000099"))


@pytest.mark.parametrize("first", [NOISY, OVER])
def test_another_measurement_may_show_that_the_budget_is_kept(run, monkeypatch, first):
    calm = ([2.0, 0.98], [2.0, 0.98])
    (said,) = check(run, monkeypatch, first, calm)
    assert "differ by 0.000" in said
    assert read_json(run.latency_json)["kept"] is True


def test_noise_tells_nothing(run, monkeypatch):
    (said,) = check(run, monkeypatch, NOISY, ([2.0, 0.9], [2.0, 1.2]), NOISY)
    assert "two measurements differ by 0.150" in said
    assert "too noisy to tell. On a calmer machine, run `export` as before: it measures again." in said
    assert read_json(run.latency_json)["kept"] is None


def test_noise_is_no_margin(run, monkeypatch):
    """Half of the measurement is over: the noise isn't added to the budget."""
    check(run, monkeypatch, *[([2.0, 0.99], [2.0, 1.02])] * 3)
    assert read_json(run.latency_json)["kept"] is None


@pytest.mark.parametrize(("wanted", "there"), [("qat_int8", "int8"), ("int8", "qat_int8")])
def test_files_of_8_bits_are_timed_alike(run, monkeypatch, wanted, there):
    write_json(run.metrics("search"), {**read_json(run.metrics("search")), "latency_format": wanted})
    (said,) = check(run, monkeypatch, CALM, formats=("fp32", there))
    assert f"{there}, threads: 2" in said
    assert read_json(run.latency_json)["format"] == there


def test_a_format_that_is_not_there(run, monkeypatch):
    (said,) = check(run, monkeypatch, formats=("saved_model",))
    assert said.startswith("warning: latency: the budget wasn't checked, because no file is fp32")
    assert read_json(run.latency_json)["kept"] is None


def test_what_can_not_be_checked_here(run, monkeypatch):
    assert check(run, monkeypatch, table="pi.json") == []
    assert check(run, monkeypatch, shape="published/cifar10-resnet56") == []  # of which the search says nothing
    write_json(run.metrics("search"), {"budget_kind": "macs"})
    assert check(run, monkeypatch) == []
    assert not run.latency_json.exists()
