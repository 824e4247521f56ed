"""Requests to end the process."""

import contextlib
import os
import signal
import threading
import time

import pytest

from tas_tf.interruption import REQUESTS, Terminated, deferred, listening

ENDS = [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]


def receive(*numbers: int) -> list[int | None]:
    """Sends signals to this process; returns what is noted after each, if they don't end it."""
    noted = []
    for number in numbers:
        os.kill(os.getpid(), number)
        noted.append(REQUESTS.received)
    return noted


@pytest.mark.parametrize(("number", "ends_with"), ENDS)
def test_a_request_ends_the_process_at_once(number, ends_with):
    before = [signal.getsignal(one) for one, _ in ENDS]
    with pytest.raises(ends_with), listening():
        receive(number)
    assert [signal.getsignal(one) for one, _ in ENDS] == before
    assert REQUESTS.received is None


@pytest.mark.parametrize(("number", "ends_with"), ENDS)
def test_a_deferred_request_waits_for_the_end_of_the_block(number, ends_with):
    reached = []
    with pytest.raises(ends_with), listening(), deferred():
        reached.extend(receive(number))
    assert reached == [number]


def test_the_second_request_does_not_wait():
    reached = []
    with pytest.raises(KeyboardInterrupt), listening(), deferred():
        reached.extend(receive(signal.SIGTERM, signal.SIGINT))
    assert reached == []


@pytest.mark.parametrize(("number", "ends_with"), ENDS)
def test_libraries_that_make_another_error_of_it_change_nothing(number, ends_with):
    def work():
        try:
            receive(number)
        except BaseException as error:
            raise RuntimeError("replaced") from error

    with pytest.raises(ends_with), listening():
        work()


class Deleted:
    """Receives a signal while it is deleted."""

    def __del__(self):
        receive(signal.SIGTERM)


def test_a_request_that_python_ignores_is_repeated(capfd):
    reached = []

    def go_on():
        Deleted()
        reached.append("the next line")
        time.sleep(60)

    with pytest.raises(Terminated), listening():
        go_on()
    assert reached == ["the next line"]
    assert capfd.readouterr().err == ""


def test_what_cleans_up_is_not_disturbed():
    reached = []

    def work():
        try:
            receive(signal.SIGTERM)
        finally:
            time.sleep(2.5)
            reached.append("clean")

    with pytest.raises(Terminated), listening():
        work()
    assert reached == ["clean"]


def test_an_error_of_what_was_deferred_is_told():
    """Such as a full disk, on which the state couldn't be saved."""

    def work():
        with deferred():
            receive(signal.SIGTERM)
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"), listening():
        work()


def test_what_the_parent_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            assert receive(signal.SIGINT) == [None]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_request_that_is_lost_counts_at_the_end():
    with pytest.raises(Terminated), listening(), contextlib.suppress(Terminated):
        receive(signal.SIGTERM)


def test_without_listening_nothing_changes():
    """As in a notebook, where Python's own handler raises."""
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred():
        reached.extend(receive(signal.SIGINT))
    assert reached == []


def test_other_threads_do_not_listen():
    errors = []

    def work():
        try:
            with listening():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
