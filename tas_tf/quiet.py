"""Keeps the notes that native libraries write about themselves from the user."""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_NOTES = re.compile(rb"[IWE]\d{4} |INFO: |WARNING: All log messages before absl::InitializeLog|fully_quantize: |loc\(")
_LIST = b"error: failed while converting"  # begins a list of operations, which the exception has too


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Holds back what is written to stderr, and passes it on at the end but for notes.

    Native libraries know no other way to be silenced, hence the file descriptor itself is redirected.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            inside = False  # whether the line belongs to the converter's list, which ends with an empty line
            for line in written:
                listed = inside or line.startswith(_LIST)
                inside = listed and bool(line.strip())
                if not listed and not _NOTES.match(line):
                    os.write(2, line)


def import_tensorflow() -> None:
    """Imports TensorFlow, whose libraries write before they read `TF_CPP_MIN_LOG_LEVEL`."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_notes():
        importlib.import_module("tensorflow")
