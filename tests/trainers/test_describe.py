import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

from tas_tf.cli import command
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.projections import projections
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.graph.graph import Graph
from tas_tf.latency.measure import Target
from tas_tf.latency.table import LatencyTable
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_file, load_network
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tests.commands import fresh_flags, run_command
from tests.networks import classify, conv_bn
from trainers import describe

ROOT = Path(__file__).parents[2]
KEYS = {
    *("model", "deployment", "macs", "params", "min_macs_ratio", "min_params_ratio", "projected_share"),
    *("task", "units", "stages", "frozen", "frozen_share", "frozen_shares"),
}


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.from_graph(Graph.from_model(load_network("resnet8", image_size=8)))


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["describe", *arguments])
    with fresh_flags(), pytest.raises(SystemExit) as ended:
        command.run(describe.main)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_json_has_the_figures_of_the_library(monkeypatch, capsys, space, tmp_path):
    shape = Shape.random(space, 1)
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(shape.to_json()))
    code, out, _ = run(monkeypatch, capsys, "--model=resnet8", "--image_size=8", f"--shape={path}", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == KEYS | {"shape_macs", "shape_params", "projections"}
    macs = CostModel(space)
    assert found["macs"] == macs.full
    assert found["min_macs_ratio"] <= macs(Shape.smallest(space)) / macs.full
    assert found["shape_macs"] == macs(shape)
    assert found["shape_params"] == CostModel(space, "params")(shape)
    assert found["projections"] == projections(space, shape)
    assert found["units"][4] == {
        "name": "stage2_block1_conv2",
        "width": 32,
        "candidates": [9, 12, 16, 19, 22, 25, 28, 32],
        "coupled_with": ["stage2_block1_shortcut"],
    }
    assert found["stages"] == []
    assert found["frozen"] == [{"layer": "classifier", "reason": "it makes the outputs"}]
    assert found["deployment"] == "ok"


@pytest.mark.slow
def test_options_reach_the_space(monkeypatch, capsys):
    arguments = ["--model=resnet14", "--image_size=8", "--num_classes=7", "--channels=1", "--json"]
    _, out, _ = run(monkeypatch, capsys, *arguments, "--axes=depth")
    found = json.loads(out)
    assert set(found) == KEYS
    assert [stage["candidates"] for stage in found["stages"]] == [[1, 2]] * 3
    assert all(unit["candidates"] == [unit["width"]] for unit in found["units"])
    assert found["params"] == load_network("resnet14", num_classes=7, channels=1).count_params()
    _, out, _ = run(monkeypatch, capsys, *arguments, "--axes=both", "--width_divisor=8", "--couple_trunk")
    found = json.loads(out)
    assert found["units"][0]["candidates"] == [8, 16]
    assert "stage1_block2_conv2" in str([unit["coupled_with"] for unit in found["units"]])


def test_tables_show_it_all(monkeypatch, capsys, space, tmp_path):
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(Shape.random(space, 1).to_json()))
    code, out, err = run(monkeypatch, capsys, "--model=resnet8", "--image_size=8", f"--shape={path}")
    assert (code, err) == (0, "")
    for text in (
        "stage3_block1_shortcut",
        "9 12 16 19 22 25 28 32",
        "classifier",
        "of them, take",
        "Stages: none",
        "deployment: ok",
    ):
        assert text in out


def test_help_shows_the_example_and_our_flags_alone(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "--help")
    assert code == 0
    assert "python -m trainers.describe --model=resnet20" in out
    assert "--[no]couple_trunk" in out
    assert "(default 1)" in " ".join(out.split())
    assert "tensorflow" not in out
    assert "--logtostderr" not in out
    assert max(map(len, out.splitlines())) <= 100


MISTAKES = {
    "unknown flag": (["--model=resnet8", "--modle=x"], "Unknown command line flag 'modle'. Did you mean: model"),
    "no dashes": (["--model=resnet8", "seed=3"], "Received: seed=3. Did you mean `--seed=3`?"),
    "no number": (["--model=resnet8", "--num_classes=ten"], "--num_classes=ten: expected a whole number"),
    "out of range": (["--model=resnet8", "--num_classes=1"], "`--num_classes` must be at least 2"),
    "no such axis": (["--model=resnet8", "--axes=height"], "`--axes` must be one of both, width, depth"),
    "no model": ([], "`--model` is needed"),
    "unknown model": (["--model=resnet9"], "no network 'resnet9'"),
    "missing file": (["--model=nowhere.keras"], "no file nowhere.keras"),
    "missing shape": (["--model=resnet8", "--shape=nowhere.json"], "can't read nowhere.json"),
    "missing flagfile": (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_in_a_line(monkeypatch, capsys, arguments, message):
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_shape_of_another_network_is_refused(monkeypatch, capsys, space, tmp_path):
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(Shape.full(space).to_json()))
    code, out, err = run(monkeypatch, capsys, "--model=resnet14", "--image_size=8", f"--shape={path}")
    assert (code, out) == (1, "")
    assert "another network" in err


def test_a_model_for_another_task(monkeypatch, capsys, tmp_path):
    images = keras.Input((8, 8, 3))
    path = tmp_path / "labels.keras"
    keras.Model(images, classify(conv_bn(images, 8), 4, "sigmoid")).save(path)
    code, out, _ = run(monkeypatch, capsys, f"--model={path}")
    assert code == 0
    assert "4 labels" in out.splitlines()[0]
    code, _, err = run(monkeypatch, capsys, f"--model={path}", "--task=binary")
    assert code == 1
    assert "needs a network with one output" in err


def test_a_bug_keeps_its_traceback_and_an_interruption_has_its_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["describe"])

    def interrupted():
        raise KeyboardInterrupt

    def broken():
        raise RuntimeError("a bug")

    with pytest.raises(SystemExit) as ended:
        command.run(interrupted)
    assert ended.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a bug"):
        command.run(broken)


@pytest.mark.slow
def test_in_a_process_of_its_own_nothing_else_is_written(tmp_path):
    images = keras.Input((8, 8, 3))
    keras.Model(images, layers.Softmax()(classify(conv_bn(images, 8)))).save(tmp_path / "net.keras")
    done = subprocess.run(
        [sys.executable, "-m", "trainers.describe", f"--model={tmp_path}/net.keras", "--json"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(done.stdout)) == KEYS
    assert done.stderr == ""


@pytest.mark.slow
def test_sizes_come_from_the_data_where_it_is_named():
    outcome = run_command(describe, "--model=resnet8", "--dataset=digits")
    assert outcome.code == 0, outcome.err
    assert "images of 8x8x1, 10 classes" in outcome.out
    assert "images of 32x32x3" in run_command(describe, "--model=resnet8").out


@pytest.mark.slow
def test_bottlenecks_are_described_as_they_are_searched(tmp_path):
    path = tmp_path / "bottlenecks.keras"
    resnet_cifar(29, bottleneck=True).save(path)
    default, free = (run_command(describe, f"--model={path}", *more) for more in ([], ["--nocouple_trunk"]))
    assert (default.code, free.code) == (0, 0), (default.err, free.err)
    assert "projections: 0% of the MACs of random shapes, on average; blocks of a stage end in one width" in default.out
    assert "one width" not in free.out
    assert "projections: 0%" not in free.out


def test_budgets_are_told_and_checked():
    given = ["--model=resnet8", "--image_size=8", "--budget=macs:0.5", "--budget=params:20k", "--budget=bytes:0.5"]
    outcome = run_command(describe, *given, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    budgets = found["budgets"]
    assert (budgets["macs:0.5"]["limit"], budgets["macs:0.5"]["full"]) == (found["macs"] // 2, found["macs"])
    assert budgets["params:20000"]["smallest"] < budgets["params:20000"]["limit"] == 20_000
    assert 4 * found["params"] < budgets["bytes:0.5"]["full"] < 1.1 * 4 * found["params"]
    assert budgets["bytes:0.5"]["limit"] == budgets["bytes:0.5"]["full"] // 2
    assert found["min_params_ratio"] < 0.2
    for budget, message in (("bytes:half", "must be KIND:VALUE"), ("params:100", "below what")):
        outcome = run_command(describe, "--model=resnet8", f"--budget={budget}")
        assert outcome.code == 1
        assert message in outcome.err


def test_a_shape_is_described_beside_several_budgets(space, tmp_path):
    path = tmp_path / "shape.json"
    path.write_text(json.dumps(Shape.random(space, 1).to_json()))
    shown = ["--model=resnet8", "--image_size=8", f"--shape={path}", "--budget=macs:0.5", "--budget=params:0.6"]
    outcome = run_command(describe, *shown, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    macs, params = CostModel(space), CostModel(space, "params")
    assert found["shape_macs"] == macs(Shape.load(path))
    assert {name: each["limit"] for name, each in found["budgets"].items()} == {
        "macs:0.5": int(0.5 * macs.full),
        "params:0.6": int(0.6 * params.full),
    }


def test_latency_with_preprocessing_inside_is_that_of_a_probe_with_it(clock, trained_tiny, tmp_path):
    """Files with preprocessing inside are others: a table of theirs fits only if that is told."""
    path, space = tmp_path / "latency.json", SearchSpace.from_model(load_file(trained_tiny))
    inside = Target(preprocessing=lambda: Preprocessing("scale_0_1").layers())
    LatencyTable.measure(space, inside).save(path)
    given = [f"--model={trained_tiny}", "--budget=latency:0.7", f"--latency_from={path}", "--json"]
    data = ["--dataset=digits", "--preprocess=scale_0_1"]
    found = run_command(describe, *given, *data, "--preprocessing_inside")
    assert found.code == 0, found.err
    assert json.loads(found.out)["budgets"]["latency:0.7"]["limit"] > 0
    assert "other shapes" in run_command(describe, *given, *data).err
    assert "Give its `--dataset`" in run_command(describe, *given, "--preprocessing_inside").err
