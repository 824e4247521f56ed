"""What a step's result was made from: hashes of inputs, and descriptions of differences."""

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tas_tf.errors import UserError
from tas_tf.files import DAMAGED_ZIP


def hash_content(path: Path) -> str:
    """Returns the SHA-256 of a file, or of a folder's file names and contents.

    For a `.keras` file, the part with the date is left out: saving the same network again gives the same hash.

    Raises:
        UserError: If the file can't be read.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{hash_content(file)}\n".encode())
        return digest.hexdigest()
    try:
        if zipfile.is_zipfile(path) and path.suffix == ".keras":
            with contextlib.suppress(*DAMAGED_ZIP):  # then all bytes count, and whoever loads it tells
                return _hash_members(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Can't read the input {path}: {error.strerror}.") from error


def _hash_members(path: Path) -> str:
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(set(archive.namelist()) - {"metadata.json"}):
            with archive.open(name) as member:
                digest.update(f"{name}\0{hashlib.file_digest(member, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def compare_settings(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describes which settings differ; nested ones have dotted names."""
    was, now = flatten(was), flatten(now)
    return [
        f"{name}: was {_show(was, name)}, now {_show(now, name)}"
        for name in sorted(was.keys() | now.keys())
        if name not in was or name not in now or was[name] != now[name]
    ]


def compare_inputs(was: Mapping[str, str], now: Mapping[str, str], paths: Mapping[str, Path]) -> list[str]:
    """Describes which inputs differ by their hashes.

    Args:
        was: Recorded hashes by label.
        now: Current hashes by label.
        paths: Current paths by label.
    """
    lines = []
    for label in sorted(was.keys() | now.keys()):
        if label not in now:
            lines.append(f"input {label}: was used, now isn't used")
        elif label not in was:
            lines.append(f"input {label}: was not used, now {paths[label]}")
        elif was[label] != now[label]:
            lines.append(f"input {label}: was another file, now {paths[label]} (content differs)")
    return lines


def list_differences(differences: Sequence[str], decided: Collection[str] = ()) -> str:
    """Lists differences as indented lines.

    Args:
        differences: The differences, at least one.
        decided: Settings that the user didn't give. They are left out, unless nothing else differs.

    >>> list_differences(["budget: was 1, now 2", "epochs: was 22, now 50"], ["epochs"])
    '  budget: was 1, now 2'
    """
    given = [line for line in differences if line.partition(": was ")[0] not in decided]
    return "\n".join(f"  {line}" for line in given or differences)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings to one level with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _show(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "unset"
