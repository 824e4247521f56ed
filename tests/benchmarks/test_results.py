"""The tables of the comparison, from records made up for the test."""

import re

import keras
import pytest

from benchmarks import records as kept
from benchmarks import results
from benchmarks.cell import build_network
from tas_tf.files import write_json


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "RECORDS", tmp_path)
    one = {
        "macs": 25,
        "full_macs": 100,
        "epochs": 20,
        "seconds": 60.0,
        "fp32_ms": 0.5,
        "teacher_fp32_ms": 1.0,
        "int8_ms": 0.2,
        "teacher_int8_ms": 0.3,
        "teacher_accuracy": 0.92,
    }
    accuracies = {"recipe": (0.9, 0.91, 0.92), "uniform": (0.89, 0.905, 0.9), "random": (0.8,)}
    for method, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            write_json(kept.record_path("resnet14", "macs:0.25", method, seed), {**one, "accuracy": accuracy})
    return tmp_path


def test_paired_differences_and_their_interval(records):
    lines = "\n".join(kept.tables()).splitlines()
    assert "**resnet14, `macs:0.25`** (teachers: 92.00 %)" in lines
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "x |" in line
    }
    assert list(rows) == ["recipe", "uniform", "random"]  # best first
    assert rows["recipe"] == ["3", "91.00 %", "", "0.250", "2.00x", "1.50x", "20", "60"]
    # Differences of 1, 0.5 and 2 points: mean 1.17, deviation 0.764; t of 2 degrees of freedom is 4.303.
    mean, half = map(float, re.fullmatch(r"\+([\d.]+) ± ([\d.]+)", rows["uniform"][2]).groups())
    assert mean == pytest.approx(1.17, abs=0.005)
    assert half == pytest.approx(4.303 * 0.7638 / 3**0.5, abs=0.01)
    assert rows["random"][2] == "+10.00"


def test_mean_ranks(records):
    """Over the seed that all methods have."""
    lines = kept.tables()
    assert lines[-3:] == ["| recipe | 1.00 | 1 |", "| uniform | 2.00 | 1 |", "| random | 3.00 | 1 |"]


def test_a_picture(records, tmp_path):
    kept.plot(kept.read_records(), path := tmp_path / "images" / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_is_recorded_is_not_run_again(records, monkeypatch):
    monkeypatch.setattr(results, "Cell", lambda *args: pytest.fail("a finished cell was opened"))
    options = results.argparse.Namespace(methods=["recipe", "uniform"], teachers="unused")
    results._run_cell("resnet14", "macs:0.25", 0, options)


def test_the_users_mobilenet():
    network = build_network(results.CASES["mobilenetv2"])
    assert network.input_shape == (None, 32, 32, 1)
    momenta = {layer.momentum for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert momenta == {0.9}


def test_every_method_of_a_case_exists():
    for case in results.CASES.values():
        assert set(case.methods) <= set(results.METHODS)
    assert not set(results.METHODS) & set(results.VARIANTS)
