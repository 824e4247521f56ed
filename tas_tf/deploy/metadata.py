"""What travels inside a deployed file: labels, what to do with pixels, and where the network comes from.

A `.tflite` file carries two small files in a zip archive behind the model, as TFLite's own associated files are kept:
interpreters pass over it, and any unzip reads it (`unzip -p int8.tflite labels.txt`). A SavedModel has them in
`assets.extra/`, the place that TensorFlow leaves to users.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.errors import UserError
from tas_tf.version import __version__

LABELS_FILE = "labels.txt"
METADATA_FILE = "metadata.json"
EXTRA_FOLDER = "assets.extra"
# What reading raises, by where the damage is: in the archive's headers, its contents, the text or the JSON.
_DAMAGE = (OSError, zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error)
_DAMAGE += (ValueError, TypeError)
# The same contents give the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Metadata:
    """What a program needs to know of a classifier, and may want to.

    Attributes:
        network: Name of the network.
        labels: Names of the classes, in the order of the outputs.
        input_shape: Height, width and channels of an image.
        preprocessing: What the network was trained with.
        inside: Whether that is part of the graph, which then takes pixels.
        probabilities: Whether outputs are probabilities, rather than logits.
        shape: As `shape.json` has it; `None` of a network that nobody searched.

    Example:
        >>> import tas_tf
        >>> found = tas_tf.Metadata("mine", ["cat", "dog"], (32, 32, 3), tas_tf.Preprocessing(), False, True)
        >>> found.describe("fp32")["output"]
        'probabilities'
    """

    network: str
    labels: Sequence[str]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    inside: bool
    probabilities: bool
    shape: Mapping[str, Any] | None = None

    def describe(self, format: str) -> dict[str, Any]:
        """What `metadata.json` holds for a file of a format.

        Its `input` says how to get from pixels, red, green and blue from 0 to 255, to what the network takes: turn the
        channels round if `channel_order` is `bgr`, then `pixels * scale + offset`. Where the file's own input is
        quantised, that is quantised by the input's parameters.
        """
        outside = Preprocessing("none") if self.inside else self.preprocessing
        height, width, channels = self.input_shape
        return {
            "tas_tf": __version__,
            "network": self.network,
            "format": format,
            "input": {
                **{"height": height, "width": width, "channels": channels},
                **outside.affine(),
                **{"preprocessing": self.preprocessing.kind, "inside": self.inside},
            },
            "output": "probabilities" if self.probabilities else "logits",
            "shape": self.shape,
        }

    def files(self, format: str) -> dict[str, bytes]:
        """The two files by name."""
        labels = "".join(f"{' '.join(label.split())}\n" for label in self.labels)
        description = json.dumps(self.describe(format), separators=(",", ":"))
        return {LABELS_FILE: labels.encode(), METADATA_FILE: description.encode()}


def append_files(flatbuffer: bytes, files: Mapping[str, bytes]) -> bytes:
    """Puts a zip archive of files, not compressed, behind a TFLite model."""
    buffer = io.BytesIO(flatbuffer)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def write_extra(saved_model: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a SavedModel that is being written."""
    folder = saved_model / EXTRA_FOLDER
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads back what a `.tflite` file or a SavedModel folder carries.

    Returns:
        What `Metadata.describe` returned, and `labels`.

    Raises:
        UserError: It carries nothing, or isn't there.

    Example:
        ```python
        print(tas_tf.read_metadata("student.tflite")["labels"])
        ```
    """
    path = Path(path)
    try:
        if path.is_dir():
            contents = [(path / EXTRA_FOLDER / name).read_bytes() for name in (METADATA_FILE, LABELS_FILE)]
        else:
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in (METADATA_FILE, LABELS_FILE)]
        return {**json.loads(contents[0]), "labels": contents[1].decode().splitlines()}
    except _DAMAGE as error:
        raise UserError(f"`path` must be a file exported with its metadata. Received: {path} ({error}).") from error
