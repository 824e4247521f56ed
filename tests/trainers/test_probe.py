"""The command that writes networks to time on another device; it needs a network, and data only for what is inside."""

import functools
import json
import re
from pathlib import Path

import keras
import pytest

from tas_tf.files import read_json, write_json
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import with_image_size
from tas_tf.latency.measure import Target
from tas_tf.latency.probe import write_probe
from tas_tf.latency.table import digest_of
from tas_tf.space.space import SearchSpace
from tests.networks import classify, conv_bn
from tests.parts import slow_except
from trainers import probe

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def three_networks(monkeypatch):
    monkeypatch.setattr(probe, "write_probe", functools.partial(write_probe, count=3))


@pytest.fixture
def no_data(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("data was loaded")

    monkeypatch.setattr("tas_tf.data.task.load_source", refuse)


def network(size: int | None) -> keras.Model:
    images = keras.Input((size, size, 3))
    x = conv_bn(conv_bn(images, 8, name="first"), 12, name="second")
    return keras.Model(images, classify(x), name="plain")


def saved(path: Path, size: int | None = 12) -> Path:
    network(size).save(path)
    return path


def header(run: Path) -> dict:
    return json.loads((run / "probe" / "shapes.json").read_text())


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("guide", slow_except(["raspberry-pi", "android"], ["android"]))
def test_the_network_alone_is_enough(command, tmp_path, monkeypatch, guide):
    """The guides' commands, as they are."""
    monkeypatch.chdir(tmp_path)
    model, run = saved(tmp_path / "mine.keras"), tmp_path / "runs" / {"raspberry-pi": "pi", "android": "phone"}[guide]
    (line,) = re.findall(r"^tas-tf probe (.+)$", (ROOT / "docs" / "guides" / f"{guide}.md").read_text(), re.MULTILINE)
    done = command(probe, *line.split())
    assert done.code == 0, done.err
    assert "--latency_from=latency.json --latency_format=int8 --threads=4 --formats=saved_model,fp32,int8" in done.out
    found = header(run)
    assert (found["format"], found["threads"], len(found["files"])) == ("int8", 4, 3)
    space = SearchSpace.from_graph(Graph.from_model(keras.saving.load_model(model)))
    assert found["digest"] == digest_of(space, Target("int8", 4))


@pytest.mark.usefixtures("no_data")
def test_a_network_for_any_size_needs_a_size(command, tmp_path):
    model, run = saved(tmp_path / "mine.keras", None), tmp_path / "run"
    done = command(probe, f"--model={model}", f"--run_dir={run}")
    assert (done.code, run.exists()) == (1, False)
    assert done.err.startswith("error: `--image_size`: ")
    done = command(probe, f"--model={model}", f"--run_dir={run}", "--image_size=12")
    assert done.code == 0, done.err
    fixed = with_image_size(keras.saving.load_model(model), (12, 12, 3))
    assert header(run)["digest"] == digest_of(SearchSpace.from_model(fixed), Target())


def test_data_is_used_for_preprocessing_inside_and_for_the_size(command, tmp_path, trained_tiny):
    arguments = [f"--model={trained_tiny}", "--dataset=digits", "--preprocess=standardise"]
    done = command(probe, *arguments, f"--run_dir={tmp_path}/inside", "--preprocessing_inside")
    assert done.code == 0, done.err
    done = command(probe, *arguments, f"--run_dir={tmp_path}/plain")
    assert done.code == 0, done.err
    assert header(tmp_path / "inside")["digest"] != header(tmp_path / "plain")["digest"]
    done = command(probe, "--model=resnet8", f"--run_dir={tmp_path}/named")
    assert done.code == 0, done.err


@pytest.mark.usefixtures("no_data")
def test_a_measured_table_is_kept(command, tmp_path):
    model, run = saved(tmp_path / "mine.keras"), tmp_path / "run"
    arguments = [f"--model={model}", f"--run_dir={run}"]
    done = command(probe, *arguments)
    assert done.code == 0
    assert "--formats" not in done.out  # fp32 is written by default
    table = run / "probe" / "latency.json"
    write_json(table, {**header(run), "ratios": [1.0, 0.5, 0.7]})
    assert command(probe, *arguments).code == 0
    assert read_json(table)["ratios"] == [1.0, 0.5, 0.7]
    done = command(probe, *arguments, "--threads=2")
    assert done.code == 1
    assert f"`--run_dir`: {table} was measured with other networks (threads changed)" in done.err
    assert "`--overwrite`" in done.err
    assert header(run)["threads"] == 1
    assert command(probe, *arguments, "--threads=2", "--overwrite").code == 0
    assert (header(run)["threads"], table.exists()) == (2, False)
    table.write_text('{"version": 1, ')
    done = command(probe, *arguments, "--threads=2")
    assert done.code == 1
    assert f"`--run_dir`: {table} is damaged" in done.err
    assert command(probe, *arguments, "--threads=2", "--overwrite").code == 0
    assert not table.exists()
