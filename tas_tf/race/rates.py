"""Which learning rates are tried before a race."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tas_tf.race.lap import Lap

# Short trainings favour low learning rates: the highest one counts whose loss is above the best one by at most this
# share of it. Losses of the user's own may be negative.
_NEARLY = 0.1
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


def choose_rate(tried: Sequence[Lap]) -> tuple[int, str]:
    """Chooses the highest rate that does nearly as well as the best.

    Args:
        tried: A lap with each rate, one of which has a finite loss.

    Returns:
        Index of the lap, and a line that tells why it isn't the best one; empty if it is.
    """
    best = min(tried, key=lambda lap: lap.loss)
    enough = [lap for lap in tried if lap.loss <= best.loss + _NEARLY * abs(best.loss)]
    lap = max(enough, key=lambda lap: lap.rate_factor)
    if lap.loss == best.loss:
        return tried.index(lap), ""
    return tried.index(lap), (
        f"learning rate x{lap.rate_factor:g} goes on: nearly as good as x{best.rate_factor:g} (loss {lap.loss:.3g} and "
        f"{best.loss:.3g}), and higher rates do better in longer trainings"
    )
