"""Folders of networks to time on a user's device, and the scripts that time them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tas_tf.errors import UserError
from tas_tf.files import atomic_folder, read_json, write_json
from tas_tf.latency.measure import Target, write_student
from tas_tf.latency.shapes import shapes_to_measure
from tas_tf.latency.table import COUNT, VERSION, digest_of
from tas_tf.replacing import remove_partial
from tas_tf.space.space import SearchSpace

_SCRIPTS = Path(__file__).with_name("device")
SCRIPTS = ("measure.py", "measure_android.sh")
#: What is in a folder besides networks and scripts: its description, and what a probe and a check give.
HEADER, TABLE, STUDENT = "shapes.json", "latency.json", "student.json"


def write_probe(
    space: SearchSpace,
    target: Target,
    folder: str | Path,
    *,
    count: int = COUNT,
    overwrite: bool = False,
    on_written: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a folder to copy to a device: `python3 measure.py` there writes the table `latency.json`.

    Args:
        space: Search space of the network.
        target: What is measured.
        folder: Folder to write; an existing one is replaced. A table in it stays if it is of the same networks.
        count: Number of networks.
        overwrite: Whether a table of other networks, or a damaged one, is removed.
        on_written: Called after each file with the number of files written, and of all.

    Returns:
        The folder.

    Raises:
        UserError: If the folder holds a table of other networks, or a damaged one.
    """
    folder, shapes = Path(folder), shapes_to_measure(space, count)
    header = {
        "version": VERSION,
        "network": space.graph.network,
        "digest": digest_of(space, target),
        "format": target.format,
        "threads": target.threads,
        "widths": [[shape.widths[unit.name] for unit in space.units] for shape in shapes],
        "depths": [[shape.depths[stage.name] for stage in space.stages] for shape in shapes],
    }
    table = folder / TABLE
    found = content_of(table)
    keeps = found is not None and not differing(found, header)
    if table.exists() and not (keeps or overwrite):
        changed = ", ".join(differing(found, header))
        reason = "is damaged" if found is None else f"was measured with other networks ({changed} changed)"
        raise UserError(
            f"`run_dir`: {table} {reason}, and a new probe would remove it. Move it away, or give `overwrite`."
        )
    with _device_folder(folder, header) as scratch:
        for number, shape in enumerate(shapes):
            write_student(space, shape, scratch / _file_name(number), target)
            if on_written is not None:
                on_written(number + 1, len(shapes))
        if keeps:
            shutil.copy(table, scratch / TABLE)
    return folder


def write_check(folder: str | Path, files: Sequence[Path], header: Mapping[str, Any]) -> Path:
    """Writes a folder to copy to a device: `python3 measure.py` there writes `student.json`, which holds a verdict.

    Args:
        folder: Folder to write; an existing one is replaced.
        files: Files of the original and of the student.
        header: `format`, `threads`, the `budget` in words, and as a share of the original's time,
            `budget_share`; besides, whatever tells this student from others. `student.json` repeats all of it.

    Returns:
        The folder.
    """
    with _device_folder(folder, header) as scratch:
        for number, file in enumerate(files):
            shutil.copy(file, scratch / _file_name(number))
    return Path(folder)


def _file_name(number: int) -> str:
    """Name of a network's file in a folder for a device; the unpruned one is the first."""
    return f"{number:03}.tflite"


def differing(content: Any, header: Mapping[str, Any]) -> list[str]:
    """Names of the entries in which what a device wrote differs from the header of its folder."""
    return [name for name in header if not isinstance(content, dict) or content.get(name) != header[name]]


def content_of(path: Path) -> Any:
    """What a JSON file in a folder for a device holds; `None` if it is missing or damaged."""
    with contextlib.suppress(UserError):
        return read_json(path)
    return None


@contextlib.contextmanager
def _device_folder(folder: str | Path, header: Mapping[str, Any]) -> Iterator[Path]:
    """Yields a scratch folder for networks, which becomes the folder for a device with its header and scripts."""
    folder = Path(folder)
    remove_partial(folder.parent, of=folder.name)
    with atomic_folder(folder) as scratch:
        yield scratch
        # Sizes tell whether a copy of the folder is complete.
        sizes = {path.name: path.stat().st_size for path in sorted(scratch.glob("*.tflite"))}
        write_json(scratch / HEADER, {**header, "files": sizes})
        for name in SCRIPTS:
            shutil.copy(_SCRIPTS / name, scratch / name)
