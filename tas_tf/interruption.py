"""Requests to end the process: Ctrl-C, and SIGTERM, which clusters send before they take a machine away.

A training saves its state first; everything else ends at once, since files are written atomically.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Exit code after SIGTERM, "try again later" in sysexits.h: the same command goes on.
EXIT_CODE = 75


class Terminated(BaseException):
    """The process received SIGTERM. Like `KeyboardInterrupt`, it isn't an error that a program could handle."""


class Requests:
    """Requests to end that this process received.

    Attributes:
        received: Number of the last signal.
        deferring: Whether requests are only noted.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferring = False

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal. The second one ends the process at once."""
        del frame
        first, self.received = self.received is None, number
        if not (self.deferring and first):
            self.end()

    def end(self) -> None:
        """Does what was requested.

        Raises:
            KeyboardInterrupt: On Ctrl-C.
            Terminated: On SIGTERM.
        """
        raise KeyboardInterrupt if self.received == signal.SIGINT else Terminated


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
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, REQUESTS.receive) for number in handled}
    try:
        yield
    finally:
        REQUESTS.received = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only notes a request inside the block, where `REQUESTS.received` tells.

    Raises:
        KeyboardInterrupt: At the end of the block, on Ctrl-C inside it.
        Terminated: Likewise, on SIGTERM.
    """
    REQUESTS.deferring = True
    try:
        yield
    finally:
        REQUESTS.deferring = False
    if REQUESTS.received is not None:
        REQUESTS.end()
