"""The record of a step, which says what its result was made from, and the results that later steps read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tas_tf.errors import UserError
from tas_tf.files import digest_of, read_json, write_json
from tas_tf.replacing import remove_partial, replace_together, scratch_folder
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


@contextlib.contextmanager
def amending(path: Path) -> Iterator[Path]:
    """Yields an empty folder for a new version of one JSON file that a step wrote.

    The file and its hash in the step's record are replaced together; the other results stay. If the block ends with
    an error, everything stays as it is.

    Args:
        path: The file, in the folder of the step, which must be locked by this process; see `Run.prepare`.

    Raises:
        UserError: If the file was not written.
    """
    digest = path.with_name("digest.json")
    remove_partial(path.parent)
    with scratch_folder(path.parent) as scratch:
        yield scratch
        record = read_record(digest)
        files = {**record.get("files", {}), path.name: hash_content(scratch / path.name)}
        write_json(scratch / digest.name, {**record, "files": files})
        replace_together(scratch, [path.name, digest.name])


def is_made_from(folder: Path, label: str, path: Path) -> bool:
    """Whether a step read a file with its current content.

    Args:
        folder: Folder of the step.
        label: Name of the input in the step's record.
        path: The file.
    """
    return path.exists() and read_record(folder / "digest.json")["inputs"].get(label) == hash_content(path)
