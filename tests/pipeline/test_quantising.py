"""Networks of a run trained for 8 bits: which ones, only once, and the replacement for those that can't be."""

from __future__ import annotations

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.cli.command import start
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json, write_model
from tas_tf.graph.graph import Graph
from tas_tf.pipeline import quantising
from tas_tf.pipeline.quantising import run_qat, settle_formats
from tas_tf.qat.quantise import QatError
from tas_tf.qat.saving import load_quantised
from tas_tf.runs.workspace import Workspace
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.commands import fresh_flags
from tests.networks import classify, conv_bn, randomize

FURTHER = "budgets/macs_0.4"


def small_network() -> keras.Model:
    images = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(9, 3, strides=2, name="conv")(images))
    return randomize(keras.Model(images, classify(layers.ReLU(name="relu")(x), 10, "softmax"), name="small"))


def write_student(run: Path, teacher: keras.Model, seed: int) -> None:
    space = SearchSpace.from_graph(Graph.from_model(teacher))
    shape = Shape.from_counts(space, [3 + seed], [])
    write_json(run / "search/shape.json", shape.to_json())
    write_model(run / "student/model.keras", randomize(build_student(space, shape), seed))


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """A teacher, and students of two budgets with a rival each."""
    path = tmp_path_factory.mktemp("networks")
    teacher = small_network()
    write_model(path / "teacher/model.keras", teacher)
    for seed, place in enumerate(["", "rivals/uniform", FURTHER, f"{FURTHER}/rivals/uniform"]):
        write_student(path / place, teacher, seed)
    return path


@pytest.fixture
def run(networks, tmp_path) -> Path:
    """A copy of this run folder, which the test may change."""
    path = tmp_path / "run"
    for file in networks.rglob("*"):
        if file.is_file():
            copied = path / file.relative_to(networks)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())
    return path


@pytest.fixture
def open_run(run):
    """Opens workspaces of the run with further flags."""
    common = ["--train_limit=100", "--batch_size=50", "--qat_epochs=1", "--progress=none"]

    with contextlib.ExitStack() as stack:

        def make(*arguments: str) -> Workspace:
            budgets = ["--budget=macs:0.5", "--budget=macs:0.4"]
            stack.enter_context(fresh_flags(f"--run_dir={run}", *common, *budgets, *arguments))
            return start()[0]

        yield make


class FakeTraining:
    """Replaces `train_quantised`: records its arguments and writes a file."""

    def __init__(self):
        self.asked, self.failing = {}, None

    def __call__(self, model, task, settings, path, **options):
        self.asked[Path(path)] = {"model": model, "settings": settings, **options}
        if self.failing and self.failing in str(path):
            raise UserError("Fine-tuning diverged.")
        Path(path).mkdir(parents=True)
        (Path(path) / "saved_model.pb").write_text(str(len(self.asked)))
        return {"accuracy": 0.5}

    def paths(self) -> list[Path]:
        """Names of the networks trained since the last call, in order."""
        found = list(self.asked)
        self.asked = {}
        return found


@pytest.fixture
def training(monkeypatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(quantising, "train_quantised", fake)
    return fake


def folders(run: Path) -> dict[str, Path]:
    return {
        "student": run / "qat_student/saved_model",
        "teacher": run / "qat_teacher/saved_model",
        "uniform": run / "rivals/uniform/qat_student/saved_model",
    }


@pytest.mark.slow
def test_each_network_is_trained_once(run, open_run, training):
    run_qat(open_run(), ["uniform"])
    asked = dict(training.asked)
    assert training.paths() == list(folders(run).values())
    for name, folder in folders(run).items():
        options = asked[folder]
        source = folder.parents[1] / ("teacher" if name == "teacher" else "student") / "model.keras"
        for one, other in zip(
            options["model"].get_weights(), keras.models.load_model(source).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        assert read_json(folder.parent / "metrics.json") == {"accuracy": 0.5}
        assert options["saving"].folder == folder.parent / "checkpoints"
        assert options["log_dir"] == folder.parents[1] / "logs" / folder.parent.name
        assert (options["settings"].epochs, options["settings"].batch_size) == (1, 50)
    # The second time, even where results are to be replaced: this is no result that a user looks at.
    for given in ([], ["--overwrite"]):
        run_qat(open_run(*given), ["uniform"])
    assert training.paths() == []


@pytest.mark.slow
def test_the_teacher_of_the_run_teaches_all(run, open_run, training):
    run_qat(open_run(), ["uniform"])
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    expected = np.asarray(keras.models.load_model(run / "teacher/model.keras")(images))
    for options in training.asked.values():
        logits = np.asarray(options["teacher"](images))
        assert np.abs(logits.sum(-1) - 1).max() > 1e-2
        np.testing.assert_allclose(keras.ops.softmax(logits), expected, rtol=1e-4, atol=1e-6)
    training.asked = {}
    run_qat(open_run("--nokd", "--overwrite"), [])
    assert {options["teacher"] for options in training.asked.values()} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True])
def test_a_float_control_is_for_the_student_alone(run, open_run, training, asked):
    run_qat(open_run("--qat_float" if asked else "--noqat_float"), ["uniform"])
    found = {path: options["float_control"] for path, options in training.asked.items()}
    assert [path for path, control in found.items() if control] == ([folders(run)["student"]] if asked else [])
    training.paths()
    if not asked:
        with pytest.raises(UserError, match=r"`qat_student` .*\n.*qat.float_control: was false, now true"):
            run_qat(open_run("--qat_float"), ["uniform"])


@pytest.mark.slow
def test_a_rival_without_distillation_goes_without(run, open_run, training):
    (run / "rivals/uniform").rename(run / "rivals/no_kd")
    run_qat(open_run(), ["no_kd"])
    taught = {path.parents[1].name for path, options in training.asked.items() if options["teacher"] is not None}
    assert taught == {run.name}
    assert len(training.asked) == 3
    # Nor does it matter to it how the others are taught.
    training.paths()
    run_qat(open_run("--kd_alpha=0.4", "--overwrite"), ["no_kd"])
    assert training.paths() == [folders(run)["student"], folders(run)["teacher"]]


@pytest.mark.slow
def test_further_budgets_share_the_teacher(run, open_run, training):
    first, second = open_run().at_budgets()
    assert first.config.outermost is second.config.outermost is first.config
    assert second.rival("uniform").config.outermost is first.config
    assert first.rival("uniform").config.outermost is first.config
    run_qat(first, ["uniform"])
    training.paths()
    expected = {**folders(run / FURTHER), "teacher": folders(run)["teacher"]}
    run_qat(second, ["uniform"])
    assert training.paths() == [expected["student"], expected["uniform"]]
    assert not (run / FURTHER / "qat_teacher").exists()
    # Made again for one, it serves the others as well.
    for one in open_run("--qat_lr=0.5", "--overwrite").at_budgets():
        run_qat(one, [])
    assert training.paths() == [*(folders(run)[name] for name in ("student", "teacher")), expected["student"]]


@pytest.mark.slow
def test_other_settings_are_refused_until_overwritten(run, open_run, training):
    run_qat(open_run(), [])
    training.paths()
    with pytest.raises(UserError, match=r"qat.epochs: was 1, now 2\n(.*\n)*Use `overwrite`"):
        run_qat(open_run("--qat_epochs=2"), [])
    assert training.paths() == []
    assert folders(run)["student"].exists()
    run_qat(open_run("--qat_epochs=2", "--overwrite"), [])
    assert len(training.paths()) == 2
    assert "--qat_epochs=2" in (run / "flags.cfg").read_text().split()


@pytest.mark.slow
def test_what_was_finished_before_a_failure_stays(run, open_run, training):
    training.failing = "qat_teacher"
    with pytest.raises(UserError, match="diverged"):
        run_qat(open_run(), ["uniform"])
    assert len(training.paths()) == 2
    assert not (run / "qat_teacher/metrics.json").exists()
    (run / "qat_teacher/checkpoints").mkdir()
    training.failing = None
    run_qat(open_run(), ["uniform"])
    assert training.paths() == [folders(run)["teacher"], folders(run)["uniform"]]
    assert not (run / "qat_teacher/checkpoints").exists()


@pytest.mark.slow
def test_a_network_is_really_trained(run, open_run):
    one = open_run("--qat_float")
    run_qat(one, [])
    found = {name: folders(run)[name] for name in ("student", "teacher")}
    metrics = {name: read_json(folder.parent / "metrics.json") for name, folder in found.items()}
    assert [name for name in found if "float_accuracy" in metrics[name]] == ["student"]
    images, labels = one.task.test_arrays()
    for name, folder in found.items():
        outputs = np.asarray(load_quantised(folder, (8, 8, 1))(images))
        assert (outputs.argmax(-1) == labels).mean() == pytest.approx(metrics[name]["accuracy"], abs=1e-6)
        assert list((run / f"logs/qat_{name}").rglob("events.*"))


def write_curved(path: Path) -> None:
    """A student with a layer that can't be quantised."""
    images = keras.Input((8, 8, 1))
    x = layers.ELU(name="curved")(conv_bn(images, 6))
    write_model(path, randomize(keras.Model(images, classify(x, 10, "softmax"))))


def write_function(path: Path) -> None:
    """A student that Keras 2 can't build."""
    images = keras.Input((8, 8, 1))
    write_model(path, randomize(keras.Model(images, classify(keras.ops.square(conv_bn(images, 6)), 10))))


def test_formats_stay_where_all_can_be_trained(open_run):
    formats = ["fp32", "qat_int8", "int8"]
    assert settle_formats(open_run(f"--formats={','.join(formats)}"), ["uniform"]) == formats


def test_without_qat_nothing_is_looked_at(run, open_run):
    (run / "teacher/model.keras").write_text("damaged")
    (run / "student/model.keras").unlink()
    assert settle_formats(open_run("--formats=int8,saved_model"), ["uniform"]) == ["int8", "saved_model"]


@pytest.mark.parametrize(
    ("write", "reason"), [(write_curved, r"curved \(ELU\)"), (write_function, r"`square\w*` \(Square\) is a function")]
)
def test_a_refusal_names_network_layers_and_flags(run, open_run, write, reason):
    write(run / "rivals/uniform/student/model.keras")
    with pytest.raises(QatError, match=reason) as caught:
        settle_formats(open_run("--formats=fp32,qat_int8"), ["uniform"])
    message = str(caught.value)
    assert message.startswith("`formats`: the uniform can't become qat_int8. ")
    for part in ("Leave qat_int8 out", "`qat.fallback`"):
        assert part in message


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        (["fp32", "qat_int8"], ["fp32", "int8"]),
        (["qat_int8", "int8", "fp32"], ["int8", "fp32"]),
        (["int8", "dynamic", "qat_int8"], ["int8", "dynamic"]),
    ],
)
def test_the_fallback_writes_int8_once(run, open_run, capsys, formats, expected):
    write_function(run / "student/model.keras")
    assert settle_formats(open_run("--qat_fallback", f"--formats={','.join(formats)}"), []) == expected
    out = capsys.readouterr().out
    assert out.startswith("int8 instead of qat_int8: `--formats`: the student can't become qat_int8.")
    assert out.count("\n") == 1
    assert "--qat_fallback" not in out


@pytest.mark.slow
def test_what_is_up_to_date_is_not_checked_again(run, open_run, training, monkeypatch):
    checked = []
    monkeypatch.setattr(quantising, "check_quantisable", lambda model: checked.append(model.name))
    settle_formats(open_run("--formats=qat_int8"), ["uniform"])
    assert len(checked) == 3
    run_qat(open_run(), ["uniform"])
    settle_formats(open_run("--formats=qat_int8"), ["uniform"])
    assert len(checked) == 3
    write_curved(run / "rivals/uniform/student/model.keras")
    settle_formats(open_run("--formats=qat_int8"), ["uniform"])
    assert len(checked) == 4
