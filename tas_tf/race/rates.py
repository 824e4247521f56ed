"""Which learning rates are tried before a race."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

# Each lower rate is this much lower, and there are so many of them at most.
_LOWER, _LOWERED = 4, 6


def rates_to_try(factors: Sequence[float], losses: Callable[[], Sequence[float]]) -> Iterator[float]:
    """Yields factors of the learning rate: those given and, if training diverges at all of them, lower ones.

    The first lower one at which training doesn't diverge is followed by another: where training hardly converges, less
    may be better.

    Args:
        factors: The factors given.
        losses: Returns the losses of the trainings so far, infinite for those that diverged.

    Example:
        >>> losses = [math.inf, math.inf, math.inf, 0.3, 0.2]
        >>> done = []
        >>> for factor in rates_to_try((1.0, 0.5), lambda: losses[: len(done)]):
        ...     done.append(factor)
        >>> done
        [1.0, 0.5, 0.125, 0.03125, 0.0078125]
    """
    yield from factors
    if any(map(math.isfinite, losses())):
        return
    for times in range(1, _LOWERED + 1):
        yield min(factors) / _LOWER**times
        if math.isfinite(losses()[-1]):
            yield min(factors) / _LOWER ** (times + 1)
            return
