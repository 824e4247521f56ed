"""Momenta that turn a layer's exponential moving average into the mean over all batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Batch = TypeVar("Batch")


def cumulative(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Pairs each batch with the momentum that makes a moving average the mean over all batches so far.

    A moving average `old * momentum + new * (1 - momentum)` equals the mean if the momentum at batch i is i / (i + 1).
    The first momentum is 0, which discards the previous value of the average.

    >>> [momentum for _, momentum in cumulative("abc")]
    [0.0, 0.5, 0.6666666666666666]
    """
    for number, batch in enumerate(batches):
        yield batch, number / (number + 1)
