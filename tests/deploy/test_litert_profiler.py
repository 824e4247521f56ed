"""The profiler's plan with fake sessions and clocks: no test here depends on LiteRT or the machine."""

import pytest

from tas_tf.deploy import litert_profiler


class _Session:
    """A model of four operators that take `cost` microseconds an image together, rounded down as LiteRT does."""

    def __init__(self, clock, cost):
        self.clock, self.cost, self.size, self.runs = clock, cost, 0, []

    def feed(self, shape, content):
        assert shape[1:] == [8, 8, 3]
        assert len(content) == 10 * shape[0]
        assert content == b"0123456789" * shape[0]
        self.size = shape[0]

    def run(self):
        self.runs.append(self.size)
        self.clock.now += 1.0
        each = self.cost * self.size / 4
        return [*3 * [("CONV", int(each))], ("ADD", int(each))]


class _Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def profile(monkeypatch):
    """Profiles a fake model; returns the result and the batch sizes that were run. Each run takes a second."""

    def call(cost, *, batch=1, **options):
        clock = _Clock()
        session = _Session(clock, cost)
        monkeypatch.setattr(litert_profiler, "time", clock)
        monkeypatch.setattr(litert_profiler, "_Library", lambda path: None)
        monkeypatch.setattr(litert_profiler, "_Session", lambda library, model, threads: session)
        wanted = {"most_copies": 4096, "rounds": 5, "warmup": 2, "seconds": 1000.0} | options
        found = litert_profiler.profile(
            library="", model="", shape=[batch, 8, 8, 3], images=b"0123456789" * batch, threads=1, **wanted
        )
        return found, session.runs

    return call


def test_the_batch_doubles_until_fifty_microseconds_an_operator(profile):
    # 200 microseconds for four operators take 50 images of 4.
    found, runs = profile(4.0)
    assert found["copies"] == 64
    assert runs == [size for size in (1, 2, 4, 8, 16, 32, 64) for _ in range(2)] + 7 * [64]
    assert found["rounds"] == 5 * [[*3 * [("CONV", 64)], ("ADD", 64)]]


def test_a_slow_network_runs_one_image(profile):
    found, runs = profile(200.0)
    assert found["copies"] == 1
    assert set(runs) == {1}


def test_a_network_of_no_time_at_all_stops_at_the_largest_batch(profile):
    found, runs = profile(0.0, most_copies=100)
    assert found["copies"] == max(runs) == 100
    assert found["rounds"] == 5 * [[*3 * [("CONV", 0)], ("ADD", 0)]]


def test_copies_multiply_the_models_own_batch(profile):
    found, runs = profile(4.0, batch=4, most_copies=1)
    assert found["copies"] == 1
    assert set(runs) == {4}


def test_rounds_stop_in_time_but_one_counts(profile):
    assert len(profile(200.0, rounds=1_000_000, seconds=20.0)[0]["rounds"]) == 20 - 2 - 2
    found, runs = profile(0.0, seconds=0.5)
    assert len(found["rounds"]) == 1
    assert runs == [1, 1, 1]
