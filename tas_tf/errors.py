"""The error that tells a user what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """An invalid argument, model or file. The message names it and says what was expected and what was received.

    Messages put argument names in backticks, such as `epochs`. Command-line entry points translate these names into
    flags, print the message without a traceback and exit with a non-zero code. Other names in backticks follow a word
    that says what they are, such as "layer".

    Example:
        >>> import tas_tf
        >>> try:
        ...     tas_tf.Budget.parse("macs")
        ... except tas_tf.UserError as error:
        ...     print(str(error)[:28])
        `budget` must be KIND:VALUE,

    Attributes:
        section: The group of settings that the message refers to, such as `student`: a field of
            `tas_tf.runs.config.RunConfig`. It tells apart arguments that several groups have.
    """

    section: str | None = None


@contextlib.contextmanager
def speaking_of(section: str | None) -> Iterator[None]:
    """Sets the `section` of every `UserError` raised in the block that has none yet."""
    try:
        yield
    except UserError as error:
        error.section = error.section or section
        raise
