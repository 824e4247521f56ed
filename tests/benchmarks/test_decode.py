"""The benchmark of decoding, on one of its small networks."""

import argparse

import pytest
from rich.progress import Progress

from benchmarks import decode


@pytest.mark.slow
def test_a_small_network_is_measured_against_all_its_shapes():
    options = argparse.Namespace(count=12, tolerance=0.05, seed=0)
    with Progress(disable=True) as progress:
        row = decode.measure_small("residual", "macs", options, progress)
    assert (row.network, row.kind, row.decoded, row.over) == ("residual", "macs", 12, 0)
    assert 0 < row.lowest < 0.5
    assert row.comparable + row.missed > 0
    assert row.optimal == pytest.approx(1, abs=0.25)
    assert -decode.ROUNDING < row.mean_gap <= row.largest_gap
