"""The error that tells a user what to change."""


class UserError(ValueError):
    """A mistake in what the user gave: the message names it, says what was expected and what came.

    Command-line entry points print it without a traceback and exit with a non-zero code.
    """
