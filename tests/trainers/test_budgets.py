"""Several budgets: one search, a student for each, in folders of their own."""

import json
from pathlib import Path
from unittest import mock

import pytest

from export import student as export_command
from tas_tf.cost.cost_model import CostModel
from tas_tf.decode.decode import decode
from tas_tf.pipeline import searched_shapes
from tas_tf.space.probabilities import from_json
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_file
from trainers import baseline, distill, pipeline, report, search

FURTHER = "budgets/macs_0.4"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def unbudgeted(trained_tiny, tiny_flags) -> list[str]:
    """Flags of a run, without its folder and budgets."""
    return [f"--model={trained_tiny}", "--rivals=random,full_kd", "--formats=fp32", *tiny_flags]


@pytest.fixture(scope="module")
def run(tmp_path_factory, command, unbudgeted):
    """A run by bytes and by multiply-adds, its flags and how it ended."""
    path = tmp_path_factory.mktemp("budgets") / "run"
    flags = [f"--run_dir={path}", "--budget=bytes:0.6", "--budget=macs:0.4", *unbudgeted]
    return path, flags, command(pipeline, *flags)


@pytest.mark.slow
def test_each_budget_has_a_run_of_its_own_and_the_search_is_shared(run):
    path, _, outcome = run
    assert outcome.code == 0, outcome.err
    for folder in (path, path / FURTHER):
        for name in ("search/shape.json", "student/model.keras", "export/fp32.tflite", "report.html", "report.json"):
            assert (folder / name).is_file(), name
    assert not (path / FURTHER / "teacher").exists()
    assert (path / "rivals/full_kd/student/model.keras").exists()
    assert not (path / FURTHER / "rivals/full_kd").exists()
    assert (path / FURTHER / "rivals/random/student/model.keras").exists()
    assert "all budgets" in outcome.out
    names = [line.split("│")[1].strip() for line in outcome.out.splitlines()[-4:-2]]
    assert names == ["macs:0.4", "macs:0.4, random"]
    page = (path / "budgets.html").read_text()
    assert 'href="report.html"' in page
    assert f'href="{FURTHER}/report.html"' in page
    assert "teacher: latency" in page


@pytest.mark.slow
def test_budgets_hold(run):
    path, _, _ = run
    in_bytes, in_macs = (read(folder / "search/metrics.json") for folder in (path, path / FURTHER))
    size = (path / "export/fp32.tflite").stat().st_size
    assert size == in_bytes["shape_bytes"] <= in_bytes["budget_bytes"]
    teacher = (path / "export/teacher/fp32.tflite").stat().st_size
    assert in_bytes["budget_bytes"] == pytest.approx(0.6 * teacher, rel=0.01)
    student = read(path / FURTHER / "student/metrics.json")
    assert student["macs"] == in_macs["shape_macs"] <= in_macs["budget_macs"]
    rival = read(path / FURTHER / "rivals/random/student/metrics.json")
    assert 0.97 * student["macs"] <= rival["macs"] <= student["macs"]
    reports = [read(folder / "report.json")["budget"] for folder in (path, path / FURTHER)]
    assert reports == ["bytes:0.6", "macs:0.4"]
    first, further = ((folder / "report.html").read_text() for folder in (path, path / FURTHER))
    assert "budget in bytes" in first
    assert "bytes, millions" in first
    assert "budget in multiply-adds" in further
    assert f"--flagfile={path / 'flags.cfg'}" in further


@pytest.mark.slow
def test_the_further_shape_is_decoded_from_the_search(run):
    path, _, _ = run
    space = SearchSpace.from_model(load_file(path / "teacher/model.keras"))
    cost = CostModel(space)
    probabilities = from_json(space, read(path / "search/probabilities.json"))
    expected = decode(cost, *probabilities, limit=int(0.4 * cost.full), tolerance=int(0.05 * cost.full))
    assert Shape.load(path / FURTHER / "search/shape.json") == expected


@pytest.mark.slow
def test_nothing_is_done_twice_and_a_further_budget_costs_no_search(run, command):
    path, flags, _ = run
    again = command(pipeline, *flags)
    assert again.code == 0, again.err
    headings = [line.split(" ─")[0] for line in again.out.splitlines() if " ─" in line]
    assert again.out.splitlines().count("up to date") == len([name for name in headings if "report" not in name]) - 1
    added = [flags[0], "--budget=bytes:0.6", "--budget=params:0.5", *flags[3:]]
    with mock.patch.object(searched_shapes, "run_search", side_effect=AssertionError("searched again")):
        outcome = command(search, *added)
    assert outcome.code == 0, outcome.err
    found = read(path / "budgets/params_0.5/search/metrics.json")
    assert found["shape_params"] <= found["budget_params"]


@pytest.mark.slow
def test_single_commands_take_all_budgets_of_the_run(run, command):
    _, flags, _ = run
    for module in (distill, export_command):
        outcome = command(module, *(flags if module is distill else flags[:1]))
        assert outcome.code == 0, outcome.err
        assert outcome.out.count("is up to date") == 2
    plan = command(pipeline, *flags, "--dry_run")
    assert plan.code == 0, plan.err
    assert "student at macs:0.4" in plan.out
    assert "rival full_kd at" not in plan.out


@pytest.mark.slow
def test_baselines_at_several_budgets(run, command, tmp_path):
    path, _, _ = run
    flags = [f"--run_dir={tmp_path}", f"--teacher_from={path}", "--kind=uniform", "--budget=bytes:0.7"]
    outcome = command(baseline, *flags, "--budget=macs:0.3")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "search/shape.json").exists()
    assert (tmp_path / "budgets/macs_0.3/search/shape.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_budgets_of_the_command_line_replace_those_of_a_flagfile(unbudgeted, command, tmp_path):
    (tmp_path / "some.cfg").write_text("--budget=macs:0.9\n--budget=macs:0.8\n")
    common = [f"--flagfile={tmp_path / 'some.cfg'}", f"--run_dir={tmp_path / 'run'}", *unbudgeted, "--dry_run"]
    assert "student at macs:0.8" in command(pipeline, *common).out
    for own in (["--budget=macs:0.5"], ["--budget", "macs:0.5"]):
        outcome = command(pipeline, *common, *own)
        assert outcome.code == 0, outcome.err
        assert " at macs" not in outcome.out


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_the_last_file_that_names_budgets_wins(unbudgeted, command, tmp_path):
    """As for every other flag, though this one can be repeated: files within files, and one behind another."""
    flags = [f"--run_dir={tmp_path / 'run'}", *unbudgeted, "--dry_run"]
    files = {
        "base.cfg": "--budget=macs:0.9\n# --budget=macs:0.85\n--budget=macs:0.8\n",
        "inner.cfg": f"--flagfile={tmp_path / 'base.cfg'}\n--budget=macs:0.7\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    base, inner = (f"--flagfile={tmp_path / name}" for name in files)
    for given, further in (([inner], []), ([inner, base], ["macs:0.8"]), ([base, inner], [])):
        outcome = command(pipeline, *given, *flags)
        assert outcome.code == 0, outcome.err
        assert [f"macs:0.{tenths}" for tenths in (9, 85, 8, 7) if f" at macs:0.{tenths}" in outcome.out] == further


@pytest.mark.slow
def test_what_goes_into_the_file_is_part_of_a_budget_in_bytes(run, command, tmp_path):
    path, _, _ = run
    flags = [f"--run_dir={tmp_path}", f"--teacher_from={path}", "--kind=uniform", "--budget=bytes:0.7"]
    assert command(baseline, *flags).code == 0
    outcome = command(baseline, *flags, "--preprocessing_inside")
    assert outcome.code == 1
    assert "preprocessing_inside: was false, now true" in outcome.err
    assert command(baseline, *flags, "--preprocessing_inside", "--overwrite").code == 0


@pytest.mark.slow
def test_rivals_and_reports_know_their_own_budget(run, command):
    path, _, _ = run
    for folder, budgets in ((path / "rivals/random", ["bytes:0.6"]), (path / FURTHER / "rivals/random", ["macs:0.4"])):
        lines = (folder / "flags.cfg").read_text().splitlines()
        assert [line for line in lines if line.startswith("--budget")] == [f"--budget={budget}" for budget in budgets]
    outcome = command(report, f"--run_dir={path}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("Test set results") == 3  # of each budget, then of all
    assert read(path / "report.json")["settings"]["budget"] == "bytes:0.6, macs:0.4"
    assert command(report, f"--run_dir={path / 'rivals/random'}").code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget=macs:0.5", "--budget=macs:2"], "budget"),
        (["--budget=macs:0.5", "--budget=macs:0.4", "--shape=shape.json"], "Leave out `--shape`"),
        (["--budget=macs:0.5", "--budget=macs:0.4", "--inherit=supernet"], "single `--budget`"),
        (["--budget=macs:0.5", "--budget=bytes:1k"], "below what"),
        (["--budget=bytes:1G"], "more than"),
    ],
    ids=" ".join,
)
def test_bad_budgets_are_refused_before_anything_is_made(command, trained_tiny, tiny_flags, tmp_path, more, message):
    outcome = command(pipeline, f"--run_dir={tmp_path / 'run'}", f"--model={trained_tiny}", *tiny_flags, *more)
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()
