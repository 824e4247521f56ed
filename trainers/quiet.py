"""Loads TensorFlow without the notes that it writes about itself."""

import importlib
import os
import re
import sys
import tempfile

_NOTES = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog")


def import_tensorflow() -> None:
    """Imports TensorFlow and passes on what it writes to stderr meanwhile, but for log messages.

    Its native libraries write before they read `TF_CPP_MIN_LOG_LEVEL`, so the file descriptor itself is redirected.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not _NOTES.match(line):
                    os.write(2, line)
