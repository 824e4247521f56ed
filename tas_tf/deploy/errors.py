"""Errors of an export: files that can't be made or trusted, and a full disk."""

import errno
import os
from pathlib import Path

from tas_tf.errors import UserError

_FULL = os.strerror(errno.ENOSPC)


class ExportError(UserError):
    """A model can't be converted, or an artefact doesn't compute what its model computes."""


def raise_if_full(error: Exception, path: Path) -> None:
    """Turns TensorFlow's error for a full disk, recognisable only by its text, into Python's `OSError`.

    Raises:
        OSError: If the error is about a full disk.
    """
    if _FULL in str(error):
        raise OSError(errno.ENOSPC, _FULL, str(path)) from error
