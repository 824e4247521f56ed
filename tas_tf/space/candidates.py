"""Which filter counts and block counts the search may keep."""

from __future__ import annotations

import math

from tas_tf.errors import UserError

#: Candidate widths in tenths of the full width; the paper uses 0.3 to 1.0.
WIDTH_TENTHS = tuple(range(3, 11))


def width_candidates(width: int, *, divisor: int = 1, step: int = 1) -> tuple[int, ...]:
    """Filter counts to choose from, ascending; the last one is the full width.

    Args:
        width: Filters of the unpruned layer.
        divisor: Candidates are rounded to the nearest multiple of this number, and never down to 0.
        step: All candidates must be multiples of this number, which divides the full width.

    Reference:
        Dong and Yang 2019, section 4.1, https://arxiv.org/abs/1905.09717

    >>> width_candidates(16)
    (4, 6, 8, 9, 11, 12, 14, 16)
    >>> width_candidates(64, divisor=8)
    (16, 24, 32, 40, 48, 56, 64)
    >>> width_candidates(24, step=6), width_candidates(24, divisor=4, step=6)
    ((6, 12, 18, 24), (12, 24))
    """
    if divisor < 1:
        raise UserError(f"`width_divisor` must be at least 1. Received: {divisor}.")
    divisor = math.lcm(divisor, step)
    # Integer arithmetic, because int(90 * 0.7) is 62.
    wanted = [width * tenths // 10 for tenths in WIDTH_TENTHS]
    if divisor > 1:
        wanted = [min(width, max(divisor, (count + divisor // 2) // divisor * divisor)) for count in wanted]
    return tuple(sorted({count for count in [*wanted, width] if count > 0}))


def depth_candidates(blocks: int) -> tuple[int, ...]:
    """Block counts to choose from, ascending; the last one keeps all blocks.

    >>> [depth_candidates(blocks) for blocks in (1, 2, 3, 4, 5)]
    [(1,), (1, 2), (1, 2, 3), (1, 3, 4), (1, 3, 5)]
    """
    if blocks <= 3:
        return tuple(range(1, blocks + 1))
    return tuple(sorted({*range(1, blocks + 1, 2), blocks}))
