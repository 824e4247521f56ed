"""The error of an export that can't be trusted, and that of a disk which has no room for it."""

import errno
import os
from pathlib import Path

from tas_tf.errors import UserError

_FULL = os.strerror(errno.ENOSPC)


class ExportError(UserError):
    """A model that can't be converted, or an artefact that doesn't compute what its model computes."""


def raise_if_full(error: Exception, path: Path) -> None:
    """Turns what TensorFlow makes of a full disk, an error of its own that tells it by words alone, into Python's.

    Raises:
        OSError: It is about that.
    """
    if _FULL in str(error):
        raise OSError(errno.ENOSPC, _FULL, str(path)) from error
