"""Formats the figures of a report; `-` means not measured."""

from __future__ import annotations

import re

MISSING = "-"
#: Names of the kinds of cost in running text.
KIND_NAMES = {"macs": "multiply-adds", "params": "parameters", "bytes": "bytes"}


def format_count(value: float | None) -> str:
    """Formats a count of operations or weights with a decimal prefix.

    >>> format_count(40_813_184), format_count(272_474), format_count(950), format_count(None)
    ('40.81 M', '272.5 k', '950', '-')
    """
    if value is None:
        return MISSING
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g} {suffix}"
    return f"{value:g}"


def format_bytes(value: float | None) -> str:
    """Formats a file size.

    >>> format_bytes(1_094_000), format_bytes(812)
    ('1.09 MB', '812 B')
    """
    if value is None:
        return MISSING
    for factor, suffix in ((1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {suffix}"
    return f"{value:.0f} B"


def format_ms(value: float | None) -> str:
    """Formats milliseconds.

    >>> format_ms(1.2345), format_ms(None)
    ('1.23 ms', '-')
    """
    return MISSING if value is None else f"{value:.3g} ms"


def format_share(value: float | None) -> str:
    """Formats a share from 0 to 1 as a percentage.

    >>> format_share(0.97222)
    '97.22 %'
    """
    return MISSING if value is None else f"{100 * value:.2f} %"


def format_ratio(value: float | None) -> str:
    """Formats a factor.

    >>> format_ratio(2.0444)
    '2.04x'
    """
    return MISSING if value is None else f"{value:.3g}x"


def unbroken(text: str) -> str:
    r"""Keeps numbers and units together on a line, which may end only before `±`.

    >>> unbroken("1.23 ms ± 0.05")
    '1.23\xa0ms ±\xa00.05'
    """
    return re.sub(r" (?!±)", "\N{NO-BREAK SPACE}", text)
