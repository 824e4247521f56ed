"""A folder of small networks to time on a user's device, and the scripts that time them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tas_tf.files import atomic_folder, write_json
from tas_tf.latency.measure import Target, write_student
from tas_tf.latency.shapes import shapes_to_measure
from tas_tf.latency.table import COUNT, VERSION, digest_of
from tas_tf.replacing import remove_partial
from tas_tf.space.space import SearchSpace

_SCRIPTS = Path(__file__).with_name("device")
SCRIPTS = ("measure.py", "measure_android.sh")


def write_probe(
    space: SearchSpace,
    target: Target,
    folder: str | Path,
    *,
    count: int = COUNT,
    on_written: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a folder to copy to a device: `python3 measure.py` there writes the table `latency.json`.

    Args:
        space: Search space of the network.
        target: What is measured.
        folder: Folder to write; an existing one is replaced.
        count: Number of networks.
        on_written: Called after each file with the number of files written, and of all.

    Returns:
        The folder.
    """
    folder, shapes = Path(folder), shapes_to_measure(space, count)
    remove_partial(folder.parent, of=folder.name)
    with atomic_folder(folder) as scratch:
        for number, shape in enumerate(shapes):
            write_student(space, shape, scratch / f"{number:03}.tflite", target)
            if on_written is not None:
                on_written(number + 1, len(shapes))
        header = {
            "version": VERSION,
            "network": space.graph.network,
            "digest": digest_of(space, target),
            "format": target.format,
            "threads": target.threads,
            "widths": [[shape.widths[unit.name] for unit in space.units] for shape in shapes],
            "depths": [[shape.depths[stage.name] for stage in space.stages] for shape in shapes],
        }
        write_json(scratch / "shapes.json", header)
        for name in SCRIPTS:
            shutil.copy(_SCRIPTS / name, scratch / name)
    return folder
