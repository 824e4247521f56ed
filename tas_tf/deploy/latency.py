"""Measures how long several calls take, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tas_tf.deploy.settings import Checks
from tas_tf.errors import UserError


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: the median, the 10th and the 90th percentile."""

    median_ms: float
    p10: float
    p90: float

    @property
    def spread_ms(self) -> float:
        """Milliseconds between the 10th and the 90th percentile."""
        return self.p90 - self.p10


def time_interleaved(
    callables: Mapping[str, Callable[[], None]], *, rounds: int = Checks.rounds, warmup: int = Checks.warmup
) -> dict[str, Latency]:
    """Times several calls in turn, A, B, A, B, ..., so that a drifting clock rate affects all of them equally.

    Each turn calls a function twice and times the second call: caches then hold what it needs, as in steady use.

    Args:
        callables: Functions to time, by name, called in this order.
        rounds: Number of timed rounds.
        warmup: Number of untimed rounds before them, which fill caches and start threads.

    Returns:
        The latency of each function, by name.

    Raises:
        UserError: If `rounds` isn't positive or `warmup` is negative.
    """
    if rounds < 1 or warmup < 0:
        raise UserError(
            f"`rounds` must be at least 1 and `warmup` at least 0. Received: rounds={rounds}, warmup={warmup}."
        )
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for _ in range(warmup + rounds):
        for name, call in callables.items():
            call()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: _summarise(values[warmup:]) for name, values in seconds.items()}


def _summarise(seconds: list[float]) -> Latency:
    p10, median, p90 = np.percentile(np.array(seconds) * 1e3, [10, 50, 90])
    return Latency(median_ms=float(median), p10=float(p10), p90=float(p90))
