"""Behaviour without an extra: its packages are blocked as if they weren't installed."""

import ast
import json
import logging
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from packaging.requirements import Requirement

from tas_tf.board.pictures import can_draw
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError
from tas_tf.extras import EXTRAS, missing_modules, require_extra
from tas_tf.files import write_json
from tas_tf.pipeline.exporting import ExportStep
from tas_tf.pipeline.racing import RaceStep
from tas_tf.pipeline.training import StudentStep, TeacherStep
from tas_tf.qat.train import check_quantisable, train_quantised
from tas_tf.report.page import render_html
from tas_tf.report.report import build_report
from tas_tf.searching.logs import SearchSummaries
from tas_tf.space.choices import ChoiceTable
from tas_tf.zoo.loading import load_file
from tests.commands import run_command
from tests.digits import tiny_network
from trainers import pipeline, report

ROOT = Path(__file__).parents[1]
#: Modules whose packages have other names.
_WITH_DASHES = ("tensorflow_datasets", "tensorflow_model_optimization", "tflite_micro")
PACKAGES = {name: name.replace("_", "-") for name in _WITH_DASHES}


@pytest.fixture
def without(monkeypatch):
    """Blocks the modules of an extra, even if they were imported before."""

    def block(extra: str) -> None:
        for name in list(sys.modules):
            if name.split(".")[0] in EXTRAS[extra]:
                monkeypatch.delitem(sys.modules, name)
        for name in EXTRAS[extra]:
            monkeypatch.setitem(sys.modules, name, None)

    return block


def install_line(extra: str) -> str:
    return rf"needs the extra `{extra}`: pip install \"tas-tf\[{extra}\]\""


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_is_one_line_that_names_it(without, extra):
    assert missing_modules(extra) == ()
    require_extra(extra, purpose="Nothing")
    without(extra)
    assert missing_modules(extra) == EXTRAS[extra]
    with pytest.raises(UserError, match="Cooking " + install_line(extra)) as error:
        require_extra(extra, purpose="Cooking")
    assert "\n" not in str(error.value)


def test_the_extras_of_the_package_hold_these_modules():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = {
        extra: [Requirement(text).name.lower() for text in texts]
        for extra, texts in project["optional-dependencies"].items()
    }
    core = {Requirement(text).name.lower() for text in project["dependencies"]}
    for extra, modules in EXTRAS.items():
        packages = {PACKAGES.get(module, module) for module in modules}
        assert packages <= set(optional[extra])
        assert core.isdisjoint(packages)
    (everything,) = project["optional-dependencies"]["all"]
    assert Requirement(everything).extras == set(EXTRAS)


def test_requirements_pin_every_package_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {one.name.lower(): one.specifier for one in map(Requirement, lines)}
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *(text for extra in EXTRAS for text in extras[extra])):
        wanted = Requirement(text)
        if wanted.name.lower() == "requests":  # TensorFlow's own
            continue
        (pin,) = pinned[wanted.name.lower()]
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), text


def test_a_data_set_of_tfds_names_its_extra(without, tmp_path):
    without("datasets")
    with pytest.raises(UserError, match=r"The data set 'cifar10' " + install_line("datasets")):
        load_source("cifar10", data_dir=str(tmp_path))
    assert load_source("digits").num_classes == 10


def test_quantisation_aware_training_names_its_extra(without, tmp_path):
    without("qat")
    model = tiny_network()
    with pytest.raises(UserError, match=install_line("qat")):
        check_quantisable(model)
    with pytest.raises(UserError, match=install_line("qat")):
        train_quantised(model, None, None, tmp_path / "network", strategy=None)
    assert not (tmp_path / "network").exists()


def test_a_report_names_its_extra(without, tmp_path):
    without("report")
    with pytest.raises(UserError, match=install_line("report")):
        render_html(build_report(), tmp_path / "report.html")


@pytest.fixture
def measured(tmp_path) -> Path:
    """A run folder with the measurements of a teacher and a student."""
    for step, accuracy in (("teacher", 0.75), ("student", 0.5)):
        write_json(tmp_path / f"run/{step}/metrics.json", {"accuracy": accuracy, "loss": 1.0, "macs": 1, "params": 1})
    return tmp_path / "run"


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
def test_a_report_without_its_extra_lacks_the_page_alone(without, measured, arguments):
    without("report")
    outcome = run_command(report, f"--run_dir={measured}", *arguments)
    assert outcome.code == 0, outcome
    assert not (measured / "report.html").exists()
    found = json.loads((measured / "report.json").read_text())
    assert (found["teacher"]["accuracy"], found["student"]["accuracy"]) == (0.75, 0.5)
    assert "report" not in found["files"]
    (line,) = [line for line in (outcome.out + outcome.err).splitlines() if "extra" in line]
    assert re.match(r"The page report\.html " + install_line("report"), line)
    if arguments:
        assert json.loads(outcome.out) == found
    else:
        assert "Test set results" in outcome.out


def test_the_pipeline_writes_its_report_without_the_extra(without, measured, monkeypatch):
    """All steps before the report do nothing here."""
    without("report")
    steps = (TeacherStep, RaceStep, StudentStep, ExportStep)
    for step in steps:
        monkeypatch.setattr(step, "run", lambda self: False)
        monkeypatch.setattr(step, "is_up_to_date", True)
    (measured / "search").mkdir()
    (measured / "search/shape.json").write_text("{}")
    outcome = run_command(pipeline, f"--run_dir={measured}", "--model=resnet8", "--dataset=digits", "--formats=fp32")
    assert outcome.code == 0, outcome
    assert "The page report.html needs the extra" in outcome.out
    assert "Test set results" in outcome.out
    assert (measured / "report.json").exists()


class _Monitor:
    """A search of a single width and depth, with a cost of 10."""

    class space:
        width_choices = depth_choices = ChoiceTable(("one",), ((1, 2),))

    class cost:
        full, kind = 10, "macs"

    shape, limit = None, 5

    def probabilities(self):
        return np.ones((1, 2)) / 2, np.ones((1, 2)) / 2


def test_a_search_goes_on_without_images_and_says_so_once(without, tmp_path, caplog, request):
    without("report")
    can_draw.cache_clear()
    request.addfinalizer(can_draw.cache_clear)
    summaries = SearchSummaries(tmp_path, _Monitor())
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            summaries.on_epoch_end(epoch, {"expected_cost": 0.5})
    summaries.on_train_end()
    assert [record.getMessage() for record in caplog.records if "tas-tf[report]" in record.getMessage()] == [
        'TensorBoard shows no pictures. To get them: pip install "tas-tf[report]"'
    ]
    (file,) = tmp_path.rglob("events.*")
    events = [event for event in tf.compat.v1.train.summary_iterator(str(file)) if event.HasField("summary")]
    tags = [value.tag for event in events for value in event.summary.value]
    assert tags == ["widths/one", "depths/one", "cost_in_macs/budget", "cost_in_macs/expected"] * 2


def test_a_file_of_keras_2_needs_its_extra(without, tmp_path):
    import tf_keras

    images = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.DepthwiseConv2D(3)(images))
    tf_keras.Model(images, x).save(tmp_path / "mine.keras")
    without("keras2")
    with pytest.raises(UserError, match=r"Reading .*mine.keras, a file of Keras 2.*, " + install_line("keras2")):
        load_file(tmp_path / "mine.keras")


_QAT = {"qat/arithmetic.py", "qat/calibrate.py", "qat/dropout.py", "qat/finetune.py", "qat/quantise.py", "qat/twin.py"}
#: The only files that may import an extra's packages at once: what stands behind a check.
BEHIND_A_CHECK = {
    "datasets": {
        *("data/fashion_mnist.py", "data/reachable.py"),
        *("data/tfds_builder.py", "data/tfds_source.py", "data/tfds_stream.py"),
    },
    "keras2": _QAT,  # they import the same package
    "qat": _QAT,
    "report": {"report/drawing.py", "report/figures.py"},
    "micro": {"deploy/micro/tflm_runner.py"},
}


def _imported_at_once(path: Path) -> set[str]:
    """Names of the modules that a file imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_nothing_else_imports_an_extra_at_once():
    for path in (ROOT / "tas_tf").rglob("*.py"):
        name = path.relative_to(ROOT / "tas_tf").as_posix()
        packages = {module.split(".")[0] for module in _imported_at_once(path)}
        for extra, modules in EXTRAS.items():
            assert name in BEHIND_A_CHECK[extra] or packages.isdisjoint(modules), (name, extra)


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_other_file_leads_there_at_once(extra):
    behind = {f"tas_tf.{name.removesuffix('.py').replace('/', '.')}" for name in BEHIND_A_CHECK[extra]}
    for path in [path for room in ("tas_tf", "trainers", "export") for path in (ROOT / room).rglob("*.py")]:
        if path.relative_to(ROOT).as_posix().removeprefix("tas_tf/") not in BEHIND_A_CHECK[extra]:
            assert _imported_at_once(path).isdisjoint(behind), path
