"""Requests to end the process: Ctrl-C, and SIGTERM, which clusters send before they take a machine away.

A training saves its state first; everything else ends at once, since files are written atomically.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: Exit code after SIGTERM, "try again later" in sysexits.h: the same command goes on.
EXIT_CODE = 75
#: Exit code of a worker that has lost another one, "unavailable" in sysexits.h: below 75, as Slurm returns the highest.
LOST_CODE = 69
# Seconds after which a request is repeated.
_AGAIN = 1.0


class Terminated(BaseException):
    """The process received SIGTERM. Like `KeyboardInterrupt`, it isn't an error that a program could handle."""


_ENDS = (Terminated, KeyboardInterrupt)


class Requests:
    """Requests to end that this process received.

    Attributes:
        received: Number of the last signal.
        deferring: Whether requests are only noted.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferring = False
        self._heard = False

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal. The second one ends the process at once."""
        del frame
        first = self.received is None or self._heard
        self.received, self._heard = number, False
        if not (self.deferring and first):
            # Once more if the exception is lost: Python ignores those that are raised while it deletes an object.
            _set_timer(_AGAIN)
            self.check()

    def hear(self, number: int) -> None:
        """Notes a request that another process received; one to this process still counts as the first."""
        if self.received is None:
            self.received, self._heard = number, True

    def repeat(self, number: int, frame: FrameType | None = None) -> None:
        """Handles the timer that a request has set."""
        del number, frame
        _set_timer(_AGAIN)
        if not (self.deferring or self._is_ending()):
            self.check()

    @staticmethod
    def _is_ending() -> bool:
        """Whether the exception is on its way: code that cleans up runs while it is handled."""
        handled = sys.exc_info()[1]
        while handled is not None and not isinstance(handled, _ENDS):
            handled = handled.__context__
        return handled is not None

    def check(self) -> None:
        """Ends the process if that was requested.

        Raises:
            KeyboardInterrupt: On Ctrl-C.
            Terminated: On SIGTERM.
        """
        if self.received is not None:
            raise self._exception()

    def _exception(self) -> BaseException:
        return KeyboardInterrupt() if self.received == signal.SIGINT else Terminated()


#: The requests to this process.
REQUESTS = Requests()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Handles the signals inside the block; only in the main thread, as the others can't.

    Raises:
        KeyboardInterrupt: On Ctrl-C, at once, or where a block that is `deferred` ends.
        Terminated: On SIGTERM, likewise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    REQUESTS.received = None
    handlers = {signal.SIGINT: REQUESTS.receive, signal.SIGTERM: REQUESTS.receive}
    if hasattr(signal, "SIGALRM"):  # not on Windows
        handlers[signal.SIGALRM] = REQUESTS.repeat
    # What the parent process ignores, as a shell does for programs in the background, stays ignored.
    before = {number: signal.getsignal(number) for number in handlers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handlers[number])
    hook, sys.unraisablehook = sys.unraisablehook, _without_requests(sys.unraisablehook)
    try:
        yield
        REQUESTS.check()
    except Exception as error:
        if _is_of_request(error):  # a library has made another error of the one that ends the process
            REQUESTS.check()
        raise
    finally:
        _set_timer(0)
        REQUESTS.received, sys.unraisablehook = None, hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_timer(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_of_request(error: BaseException | None) -> bool:
    """Whether an error was made of the exception of a request, as its cause, its context or its text tell."""
    while error is not None:
        if isinstance(error, _ENDS) or any(kind.__name__ in str(error) for kind in _ENDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _without_requests(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Tells of exceptions that Python ignores, except those that a request has raised."""
    return lambda ignored: None if ignored.exc_type in _ENDS else hook(ignored)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Ends the process on a request inside the block at once, also inside a block that is `deferred`.

    Raises:
        KeyboardInterrupt: On Ctrl-C, also one that was noted before.
        Terminated: On SIGTERM, likewise.
    """
    before, REQUESTS.deferring = REQUESTS.deferring, False
    try:
        REQUESTS.check()
        yield
    finally:
        REQUESTS.deferring = before


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only notes a request inside the block, where `REQUESTS.received` tells.

    Raises:
        KeyboardInterrupt: At the end of the outermost block, on Ctrl-C inside it.
        Terminated: Likewise, on SIGTERM.
    """
    outer, REQUESTS.deferring = REQUESTS.deferring, True
    try:
        yield
    finally:
        REQUESTS.deferring = outer
    if not outer:
        REQUESTS.check()
