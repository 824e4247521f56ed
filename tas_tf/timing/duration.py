"""Durations as users write and read them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from tas_tf.errors import UserError

_SECONDS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Reads a duration in seconds.

    >>> parse_duration("20m"), parse_duration("1h30m"), parse_duration("1.5h"), parse_duration("90s")
    (1200.0, 5400.0, 5400.0, 90.0)

    Raises:
        UserError: The text isn't a duration above 0.
    """
    found = _DURATION.fullmatch(text.replace(" ", ""))
    numbers = found.groups() if found else ()
    seconds = sum(float(number) * unit for number, unit in zip(numbers, _SECONDS.values(), strict=False) if number)
    if not seconds > 0:
        raise UserError(f"`time` must be a duration, such as 20m, 2h or 1h30m. Received: {text!r}.")
    return seconds


def format_duration(seconds: float) -> str:
    """Formats a duration for people.

    >>> format_duration(50), format_duration(150), format_duration(4000)
    ('50 s', '2 min 30 s', '1 h 07 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@dataclass(frozen=True)
class Deadline:
    """When work that has begun shall end.

    Attributes:
        seconds: Seconds for all of it.
        reserved: Seconds of these that its last part takes.
        begun: When it began, by `time.monotonic`.
    """

    seconds: float
    reserved: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left until the last part."""
        return self.seconds - self.reserved - self.used

    @property
    def used(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.begun

    def __str__(self) -> str:
        """How much of the time is used, in words."""
        return f"Used {format_duration(self.used)} of {format_duration(self.seconds)}"
