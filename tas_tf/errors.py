"""The error that tells a user what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake in what the user gave: the message names it, says what was expected and what came.

    Messages name arguments in backticks, such as `epochs`. Command-line entry points translate these into flags, print
    the message without a traceback and exit with a non-zero code.

    Example:
        >>> import tas_tf
        >>> try:
        ...     tas_tf.Budget.parse("macs")
        ... except tas_tf.UserError as error:
        ...     print(str(error)[:28])
        `budget` must be KIND:VALUE,

    Attributes:
        section: Whose settings the message speaks of where several have an argument of that name: `student`, for
            example, as a field of `tas_tf.runs.config.RunConfig`.
    """

    section: str | None = None


@contextlib.contextmanager
def speaking_of(section: str | None) -> Iterator[None]:
    """Says of every `UserError` from within, unless it says so itself, whose settings it speaks of."""
    try:
        yield
    except UserError as error:
        error.section = error.section or section
        raise
