"""Writing one file so that a reader never sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Writes a file beside its place, then renames it; makes the folder if needed. Returns the file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            # A rename may reach the disk before the data does.
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
