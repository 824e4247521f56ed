"""Parametrisations of which `make test` runs a part."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Marks as slow all values that aren't among `quick`; tuples are values of several arguments."""
    marked = []
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        marked.append(value if value in quick else pytest.param(*parts, marks=pytest.mark.slow))
    return marked
