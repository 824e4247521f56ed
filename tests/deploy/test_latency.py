import time

import pytest

from tas_tf.deploy.latency import time_interleaved
from tas_tf.errors import UserError


def test_calls_alternate_within_each_round():
    calls = []
    found = time_interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=2)
    assert calls == ["a", "a", "b", "b"] * 5
    assert list(found) == ["a", "b"]


def test_percentiles_leave_out_the_warmup(monkeypatch):
    # One turn: 1 s of warmup, then 10, 20, ..., 110 ms, each after a call of 1 s that isn't timed.
    timed = [1.0] + [0.01 * (i + 1) for i in range(11)]
    durations = iter([seconds for one in timed for seconds in (1.0, one)])
    now = [0.0]

    def work():
        now[0] += next(durations)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    latency = time_interleaved({"a": work}, rounds=11, warmup=1)["a"]
    assert latency.median_ms == pytest.approx(60)
    assert latency.p10 == pytest.approx(20)
    assert latency.p90 == pytest.approx(100)
    assert latency.spread_ms == pytest.approx(80)


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 1), (1, -1)])
def test_refuses_counts_that_measure_nothing(rounds, warmup):
    with pytest.raises(UserError, match="rounds"):
        time_interleaved({}, rounds=rounds, warmup=warmup)
