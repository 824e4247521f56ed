"""The report of a run folder."""

import errno
import json
import os
import shutil
from unittest import mock

import pytest

from export import student
from tas_tf.board.results import Result, write_result
from tas_tf.pipeline import reporting
from tas_tf.pipeline.behaviour import BehaviourStep
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.replacing import remove_partial, replace_together, scratch_folder
from tas_tf.report.snippets import make_snippets
from tests.failures import contents, fail_at
from trainers import distill, report


def test_it_is_written_again_from_the_folder_alone(command, interrupted, finished):
    before = json.loads((finished / "report.json").read_text())
    for name in ("report.json", "report.html"):
        (finished / name).unlink()
    outcome = command(report, f"--run_dir={finished}")
    assert outcome.code == 0, outcome
    assert max(map(len, outcome.out.splitlines()[:12])) <= 120
    found = json.loads((finished / "report.json").read_text())
    for name in ("teacher", "student", "uniform", "rivals", "budget", "seed", "shape", "history", "search"):
        assert found[name] == before[name], name
    assert found["command"].endswith(f"--flagfile={finished}/flags.cfg")
    assert "<html" in (finished / "report.html").read_text()
    shape = json.loads((finished / "search/shape.json").read_text())
    assert {unit["name"]: unit["kept"] for unit in found["shape"]["units"]} == shape["widths"]
    assert len(found["history"]["held_out_accuracy"]) == 1


def test_its_lines_run_the_files_of_the_run(command, finished, capsys):
    assert command(report, f"--run_dir={finished}").code == 0
    found = json.loads((finished / "report.json").read_text())
    (lines,) = make_snippets(found)
    assert lines.path == str(finished / "export/fp32.tflite")
    assert lines.python.replace('"', "&#34;") in (finished / "report.html").read_text()
    exec(compile(lines.python, "lines", "exec"), {})
    assert capsys.readouterr().out.strip() in found["student"]["by_class"]


def test_it_is_printed_as_json(command, finished):
    outcome = command(report, f"--run_dir={finished}", "--json")
    assert outcome.code == 0, outcome
    assert "Test set results" in outcome.err
    assert json.loads(outcome.out) == json.loads((finished / "report.json").read_text())


def test_a_command_first_puts_back_what_a_killed_one_was_replacing(command, finished, monkeypatch):
    before, files = contents(finished / "export"), ("fp32.tflite", "teacher/fp32.tflite", "metrics.json")
    with monkeypatch.context() as patch:
        patch.setattr("tas_tf.replacing._put_back", lambda scratch: None)
        fail_at(patch, "os.replace", 4)  # after two have been moved away
        with scratch_folder(finished / "export") as scratch:
            (scratch / "fp32.tflite").write_text("later")
            with pytest.raises(OSError, match="failure"):
                replace_together(scratch, files)
    assert (finished / "export/fp32.tflite").read_text() == "later"
    assert not (finished / "export/teacher/fp32.tflite").exists()
    monkeypatch.setattr(BehaviourStep, "run", lambda step: False)
    outcome = command(report, f"--run_dir={finished}")
    assert outcome.code == 0, outcome
    remove_partial(finished / "export")
    assert contents(finished / "export") == before


@pytest.mark.parametrize("what", ["render_html", "log_results"])
def test_a_report_that_fails_leaves_the_earlier_one(command, finished, monkeypatch, what):
    for name in ("macs", "accuracy"):  # so that another report would differ
        path = finished / "student/metrics.json"
        path.write_text(path.read_text().replace(f'"{name}": ', f'"{name}": 0.1 , "earlier_{name}": '))
    (finished / "student/digest.json").unlink()
    before = contents(finished)

    def fail(*arguments, **options):
        if what == "log_results":
            write_result(arguments[-1] / "teacher", Result(scalars={"half": 1.0}))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reporting, what, fail)
    with monkeypatch.context() as patch:
        patch.setattr(BehaviourStep, "run", lambda step: False)
        outcome = command(report, f"--run_dir={finished}")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert {name: content for name, content in contents(finished).items() if name != "flags.cfg"} == {
        name: content for name, content in before.items() if name != "flags.cfg"
    }


def test_half_a_run_has_a_report_too(command, finished):
    for name in ("student", "export", "rivals", "search"):
        shutil.rmtree(finished / name)
    outcome = command(report, f"--run_dir={finished}")
    assert outcome.code == 0, outcome
    found = json.loads((finished / "report.json").read_text())
    assert found["student"]["accuracy"] is None
    assert found["shape"] is None
    assert found["teacher"]["accuracy"] > 0


def test_a_folder_that_is_no_rival_is_left_alone(command, finished):
    shutil.copytree(finished / "rivals/uniform", finished / "rivals/mine")
    for module in (student, report):
        outcome = command(module, f"--run_dir={finished}")
        assert outcome.code == 0, outcome
    assert json.loads((finished / "report.json").read_text())["rivals"] == ["uniform"]


def test_the_comparison_finds_a_shape_from_elsewhere(command, interrupted, tmp_path, tiny_flags):
    """The seconds of its search are those of the run that made it."""
    shape = interrupted.path / "search/shape.json"
    places = [f"--run_dir={tmp_path}/run", f"--teacher_from={interrupted.path}", f"--shape={shape}"]
    outcome = command(distill, *places, *tiny_flags)
    assert outcome.code == 0, outcome
    (row,) = json.loads(command(report, "--json", "--compare", f"{tmp_path}/run").out)
    searched = json.loads((interrupted.path / "search/metrics.json").read_text())
    assert row["search_seconds"]["mean"] == searched["seconds"]


def test_runs_side_by_side(command, interrupted, tmp_path):
    rival = interrupted.path / "rivals/uniform"
    outcome = command(report, "--compare", interrupted.path, rival)
    assert outcome.code == 0, outcome
    assert "uniform" in outcome.out
    assert "speed-up" in outcome.out
    outcome = command(report, "--compare", interrupted.path, rival, "--json")
    own, other = json.loads(outcome.out)
    student = json.loads((interrupted.path / "student/metrics.json").read_text())
    assert own["accuracy"]["mean"] == student["accuracy"]
    assert own["macs"]["mean"] == student["macs"]
    assert (other["name"], other["seeds"], other["accuracy"]["spread"]) == ("uniform", [0], None)
    page = tmp_path / "pages/all.html"
    outcome = command(report, "--compare", interrupted.path, rival, f"--page={page}")
    assert outcome.code == 0
    assert f"page: {page}" in outcome.out
    assert f"{interrupted.path.name}/report.html" in page.read_text()
    alone = command(report, f"--run_dir={interrupted.path}", f"--page={page}")
    assert alone.code == 1
    assert "--compare" in alone.err
    assert command(report, "--compare", interrupted.path, interrupted.path).code == 1
    assert "Expected flags only" in command(report, "--compare", interrupted.path, "run_dir=x").err


@pytest.mark.parametrize("name", ["copy", "macs_0.25"])
def test_the_page_of_all_budgets_is_written_again(command, finished, name):
    """Also if the run's folder has the name of a further budget's."""
    run = finished.rename(finished.with_name(name))
    further = run / "budgets/macs_0.25"
    for step in ("student", "search"):
        shutil.copytree(run / step, further / step)
    budgets = ["--budget=macs:0.5", "--budget=macs:0.25"]
    outcome = command(report, f"--run_dir={run}", *budgets)
    assert outcome.code == 0, outcome
    page = (run / "budgets.html").read_text(encoding="utf-8")
    for link in ("report.html", "budgets/macs_0.25/report.html"):
        assert f'href="{link}"' in page
    # The teacher's point is there though the further budget has no teacher of its own.
    assert page.count('data-title="teacher"') == 2
    metrics = json.loads((further / "student/metrics.json").read_text())
    (further / "student/digest.json").unlink()
    (further / "student/metrics.json").write_text(json.dumps({**metrics, "accuracy": 0.1234}))
    shutil.copytree(run / "export", further / "export")
    with mock.patch.object(ExportStep, "run", return_value=False), mock.patch.object(BehaviourStep, "run"):
        outcome = command(student, f"--run_dir={run}", *budgets)
    assert outcome.code == 0, outcome
    assert "12.34 %" in (run / "budgets.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "told"), [("pages.html", "which is a folder"), ("pages", "ends in .html")])
def test_a_page_never_replaces_a_folder(command, tmp_path, name, told):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "precious").write_text("1")
    # The runs don't exist: the page is checked first.
    outcome = command(report, "--compare", tmp_path / "none", f"--page={folder}")
    assert outcome.code == 1
    assert "--page" in outcome.err
    assert told in outcome.err
    assert (folder / "precious").read_text() == "1"


def test_only_the_report_compares(command, interrupted, tmp_path):
    outcome = command(distill, f"--run_dir={tmp_path}/run", "--compare", interrupted.path, interrupted.path)
    assert outcome.code == 1
    assert "This command doesn't support `--compare`" in outcome.err
