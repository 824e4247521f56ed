"""Atomic writes: files and folders are written to a scratch folder, then renamed.

Of several workers, the chief alone writes: what the others write goes nowhere.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tas_tf import workers
from tas_tf.errors import UserError

if TYPE_CHECKING:
    import keras

# Prefix of the scratch folders, which an interrupted write leaves behind. They are folders so that no pattern for
# files, such as `*.keras`, matches them.
PARTIAL_PREFIX = ".partial-"


#: What reading a damaged zip archive raises; `zipfile` says NotImplementedError where damage changed the way in which
#: a file in it is compressed.
DAMAGED_ZIP = (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON, atomically. NumPy scalars and arrays become numbers and lists."""
    text = json.dumps(value, indent=2, default=_plain) + "\n"
    with _aside(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Writes a file atomically and returns its path."""
    with _aside(Path(path)) as partial:
        partial.write_bytes(content)
    return Path(path)


def read_text(path: str | Path) -> str:
    """Reads a text in UTF-8.

    Raises:
        UserError: If the file is missing or isn't text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} isn't a text in UTF-8: {error.reason} at byte {error.start}.") from error


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: If the file is missing or isn't valid JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error


def write_arrays(path: str | Path, arrays: Sequence[np.ndarray]) -> None:
    """Writes arrays as an `.npz` file, atomically."""
    with _aside(Path(path)) as partial:
        np.savez(partial, *arrays)


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """Reads what `write_arrays` wrote, in the same order.

    Raises:
        UserError: If the file is missing or damaged.
    """
    try:
        with np.load(path) as content:
            return [content[f"arr_{number}"] for number in range(len(content.files))]
    except (OSError, *DAMAGED_ZIP) as error:
        raise UserError(f"Can't read {path}: {error}.") from error


def write_model(path: str | Path, model: "keras.Model") -> None:
    """Saves `model` in the `.keras` format, atomically.

    Raises:
        ValueError: If `path` doesn't end in `.keras`.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: {path}.")
    with _aside(path) as partial:
        model.save(partial)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder, which becomes `path` if the block ends without an exception.

    An existing folder is replaced as a whole: it is moved away, then the new folder is renamed to `path`. A kill
    between the two steps leaves no folder, never a mixture.
    """
    with _aside(Path(path), folder=True) as partial:
        partial.mkdir()
        yield partial


def remove_partial(folder: str | Path, *, of: str | None = None) -> None:
    """Removes the scratch folders that interrupted writes left in `folder`.

    Args:
        folder: The folder.
        of: Name of what was being written; by default, leftovers of all writes are removed.
    """
    for leftover in Path(folder).glob(PARTIAL_PREFIX + "*"):
        if of is None or (leftover / of).exists():
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _aside(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yields a scratch path that becomes `path`.

    Raises:
        IsADirectoryError: If there is a folder in the place of a file. Only a folder may replace a folder.
    """
    if path.is_dir() and not folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not workers.is_chief():
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere) / path.name
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # The scratch folder is next to the target, because a rename is atomic only within one file system.
    scratch = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=path.parent))
    try:
        partial = scratch / path.name
        yield partial
        _flush(partial)
        if folder and path.is_dir():
            os.replace(path, scratch / "replaced")
        os.replace(partial, path)
        _flush_entry(path.parent)
    except OSError as error:
        # Errors from the write itself carry no file name.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    """Flushes a file, or all files below a folder, to disk; otherwise the rename may get there before the data."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        _flush_entry(file)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"Can't write {type(value).__name__} as JSON: {value!r}.")
