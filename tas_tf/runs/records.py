"""The record of a step, which says what its result was made from, and the results that later steps read."""

import contextlib
from pathlib import Path
from typing import Any

from tas_tf.errors import UserError
from tas_tf.files import digest_of, read_json
from tas_tf.runs.origins import hash_content


def read_record(path: Path) -> dict[str, Any]:
    """The record of a step: `settings`, `inputs` and more.

    A missing record, or one that was damaged or changed by hand, has no settings and inputs.

    Args:
        path: The file `digest.json` of the step.
    """
    with contextlib.suppress(UserError, KeyError, TypeError):
        record = read_json(path)
        known = digest_of({name: record[name] for name in ("version", "settings", "inputs")})
        if record["digest"] == known and isinstance(record.get("files", {}), dict):
            return record
    return {"settings": {}, "inputs": {}}


def read_result(path: Path) -> dict[str, Any]:
    """A JSON file that a step wrote.

    Args:
        path: The file, in the folder of the step.

    Raises:
        UserError: If it is missing, or was damaged or changed since.
    """
    content, wanted = read_json(path), read_record(path.with_name("digest.json")).get("files", {})
    changed = path.name in wanted and hash_content(path) != wanted[path.name]
    if changed or not isinstance(content, dict):
        raise UserError(
            f"{path} was damaged or changed after the step `{path.parent.name}` had written it. Restore it, or run the "
            "step again with `overwrite`."
        )
    return content


def is_made_from(folder: Path, label: str, path: Path) -> bool:
    """Whether a step read a file with its current content.

    Args:
        folder: Folder of the step.
        label: Name of the input in the step's record.
        path: The file.
    """
    return path.exists() and read_record(folder / "digest.json")["inputs"].get(label) == hash_content(path)
