"""How teacher and student of a finished run behave on the test images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export import student as export_command
from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.errors import UserError
from tas_tf.pipeline import behaviour
from tas_tf.pipeline.behaviour import read_behaviour
from tas_tf.runs.config import RunConfig
from trainers import report


def behaviour_of(run_dir: Path) -> Behaviour | None:
    return read_behaviour(RunConfig(run_dir=str(run_dir)))


def read(path) -> dict:
    return json.loads(path.read_text())


def test_a_run_compares_both_networks_once(command, interrupted, finished):
    found = behaviour_of(finished)
    for name, answers in (("teacher", found.teacher), ("student", found.student)):
        metrics, matrix = read(finished / name / "metrics.json"), answers.matrix(10)
        assert matrix.sum() == found.images
        assert matrix.trace() / found.images == pytest.approx(metrics["accuracy"])
        by_class = np.diag(matrix) / matrix.sum(1)
        assert dict(zip(found.classes, by_class, strict=True)) == pytest.approx(metrics["by_class"])
    agreement = found.agreement
    assert agreement.both + agreement.teacher == found.teacher.matrix(10).trace()
    assert len(found.pngs) == len(found.mistakes) == min(16, agreement.teacher) > 0
    assert len(list((finished / "behaviour/examples").iterdir())) == len(found.pngs)
    assert "comparing the answers" in interrupted.second.out
    made = (finished / "behaviour/digest.json").stat().st_mtime_ns
    outcome = command(export_command, f"--run_dir={finished}")
    assert outcome.code == 0, outcome
    assert "comparing the answers" not in outcome.out
    assert (finished / "behaviour/digest.json").stat().st_mtime_ns == made


def test_a_run_of_an_earlier_version_has_a_report_without_it_until_it_is_exported(command, finished):
    shutil.rmtree(finished / "behaviour")
    assert command(report, f"--run_dir={finished}").code == 0
    assert not (finished / "behaviour").exists()
    assert behaviour_of(finished) is None
    outcome = command(export_command, f"--run_dir={finished}")
    assert "comparing the answers" in outcome.out
    assert behaviour_of(finished).images == read(finished / "behaviour/metrics.json")["images"]


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_what_was_found_of_another_network_does_not_count(finished, network):
    shutil.copy(finished / "rivals/uniform/student/model.keras", finished / network / "model.keras")
    assert behaviour_of(finished) is None


def test_missing_pictures_leave_the_figures(finished):
    next((finished / "behaviour/examples").iterdir()).unlink()
    found = behaviour_of(finished)
    assert found.pngs == ()
    assert found.mistakes


def test_damage_is_told(finished):
    path = finished / "behaviour/metrics.json"
    path.write_text(path.read_text().replace('"images": ', '"images": 1'))
    with pytest.raises(UserError, match="behaviour"):
        behaviour_of(finished)


def test_a_report_does_without_it_if_the_data_is_gone(command, finished, monkeypatch):
    shutil.rmtree(finished / "behaviour")

    def gone(*arguments, **options):
        raise UserError("`dataset`: the images are gone.")

    monkeypatch.setattr(behaviour, "compare_behaviour", gone)
    outcome = command(export_command, f"--run_dir={finished}")
    assert outcome.code == 0, outcome
    assert "can't be compared. `--dataset`: the images are gone." in " ".join(outcome.out.split())
    assert "Test set results" in outcome.out
