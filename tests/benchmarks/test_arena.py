"""The benchmark of arenas, on a small network."""

import sys

import pytest

from benchmarks import arena


def test_plan_and_runtime_agree(monkeypatch, capsys):
    pytest.importorskip("tflite_micro", reason="the package is there for Linux on x86-64 alone")
    monkeypatch.setattr(sys, "argv", ["arena", "--networks=u_net", "--image_size=8"])
    arena.main()
    *_, row = capsys.readouterr().out.splitlines()
    name, planned, measured, estimate, kept, steps = row.strip("| ").split(" | ")
    assert name == "u_net"
    assert planned == measured
    assert int(kept.replace(",", "")) <= int(estimate.replace(",", ""))
    assert int(steps) <= 1
