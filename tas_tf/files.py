"""Atomic writes: files and folders are written to a scratch folder, then renamed.

Of several workers, the chief alone writes.
"""

import contextlib
import errno
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.replacing import flush, replace_together, scratch_folder

if TYPE_CHECKING:
    import keras

#: What reading a damaged zip archive raises; `zipfile` says NotImplementedError where damage changed the way in which
#: a file in it is compressed.
DAMAGED_ZIP = (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error)

_CHECKSUM = "checksum"


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON, atomically. NumPy scalars and arrays become numbers and lists."""
    text = json.dumps(value, indent=2, default=_plain) + "\n"
    _write(Path(path), lambda partial: partial.write_text(text, encoding="utf-8"))


def digest_of(content: Any) -> str:
    """Fingerprint of a value in JSON's types."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_checked(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum, atomically."""
    plain = json.loads(json.dumps(content, default=_plain))
    write_json(path, {**plain, _CHECKSUM: digest_of(plain)})


def read_checked(path: str | Path) -> dict[str, Any]:
    """Reads what `write_checked` wrote; an object without a checksum, as earlier versions wrote it, is taken as it is.

    Raises:
        UserError: If the file is missing, damaged or changed.
    """
    content = read_json(path)
    if isinstance(content, dict):
        found = content.pop(_CHECKSUM, None)
        if found in (None, digest_of(content)):
            return content
    raise UserError(f"{path} is damaged.")


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Writes a file atomically and returns its path."""
    _write(Path(path), lambda partial: partial.write_bytes(content))
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
    _write(Path(path), lambda partial: np.savez(partial, *arrays))


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """Reads what `write_arrays` wrote, in the same order.

    Raises:
        UserError: If the file is missing or damaged.
    """
    try:
        # A file of its own, since NumPy leaves that of a damaged archive open.
        with Path(path).open("rb") as file, np.load(file) as content:
            return [content[f"arr_{number}"] for number in range(len(content.files))]
    except (OSError, *DAMAGED_ZIP) as error:
        raise UserError(f"Can't read {path}: {error}.") from error


def write_model(path: str | Path, model: "keras.Model") -> None:
    """Saves `model` in the `.keras` format, atomically. All workers take part, but the chief alone writes.

    Raises:
        ValueError: If `path` doesn't end in `.keras`.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: {path}.")
    if workers.is_chief():
        _write(path, model.save)
    else:
        with workers.nowhere() as folder:
            model.save(f"{folder}/{path.name}")


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder, which becomes `path` if the block ends without an exception.

    An existing folder is replaced as a whole. If the process is killed between the two renames, there is no folder
    until it is put back: the next call for the same path does that first, and so does `put_back`. Of several workers,
    only the chief may call this.

    Raises:
        NotADirectoryError: If `path` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with _aside(path) as partial:
        partial.mkdir()
        yield partial
        replace_together(partial.parent, [path.name])


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file atomically, on the chief.

    Args:
        path: The file.
        write: Writes the file at another path.

    Raises:
        IsADirectoryError: If there is a folder in the place of the file.
    """
    if not workers.is_chief():
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _aside(path) as partial:
        write(partial)
        flush(partial)
        os.replace(partial, path)
        flush(path.parent)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yields a scratch path for what is to become `path`, and names that in errors."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as scratch:
            yield scratch / path.name
    except OSError as error:
        # Errors from the write itself carry no file name.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"Can't write {type(value).__name__} as JSON: {value!r}.")
