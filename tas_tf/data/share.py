"""The rows of each global batch that a reader needs, if several workers train together and each reads its own."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Share:
    """One of several equal parts of a global batch.

    Attributes:
        number: Number of the part, from 0.
        count: Number of parts.

    Example:
        >>> Share(1, 2).rows(8)
        slice(4, 8, None)
    """

    number: int = 0
    count: int = 1

    def size(self, batch_size: int) -> int:
        """Rows of the part.

        Args:
            batch_size: Rows of the global batch, a multiple of `count`.
        """
        return batch_size // self.count

    def rows(self, batch_size: int) -> slice:
        """The rows of a global batch that make the part."""
        size = self.size(batch_size)
        return slice(self.number * size, (self.number + 1) * size)

    def holds(self, position: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Whether examples belong to the part.

        Args:
            position: Positions in an epoch, integers of any shape.
            batch_size: Rows of the global batch.
        """
        return position % batch_size // self.size(batch_size) == self.number


#: All rows.
WHOLE = Share()
_current = contextvars.ContextVar("share", default=WHOLE)


def current_share() -> Share:
    """The part that training data made now should yield if making only a part saves time; others yield all rows."""
    return _current.get()


@contextlib.contextmanager
def reading(share: Share) -> Iterator[None]:
    """Sets the part that training data made in the block should yield."""
    token = _current.set(share)
    try:
        yield
    finally:
        _current.reset(token)
