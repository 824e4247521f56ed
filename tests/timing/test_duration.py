import pytest

from tas_tf.errors import UserError
from tas_tf.timing.duration import Deadline, format_duration, parse_duration


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("1h 5s", 3605), ("0.5m", 30)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "-5m", "0m", "1d", "5m1h", "nanm"])
def test_what_is_no_duration(text):
    with pytest.raises(UserError, match="`time` must be a duration, such as 20m, 2h or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (599, "9 min 59 s"), (660, "11 min"), (7260, "2 h 01 min")],
)
def test_texts(seconds, text):
    assert format_duration(seconds) == text


def test_how_much_of_a_time_is_used(monkeypatch):
    monkeypatch.setattr("tas_tf.timing.duration.time.monotonic", lambda: 190.0)
    deadline = Deadline(120.0, reserved=10.0, begun=100.0)
    assert (deadline.used, deadline.left) == (90.0, 20.0)
    assert str(deadline) == "Used 1 min 30 s of 2 min"
