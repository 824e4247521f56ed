"""Metadata inside a deployed file: labels, preprocessing of pixels, and where the network comes from.

A `.tflite` file has two small files in a zip archive behind the model, like TFLite's own associated files. Interpreters
ignore the archive, and any unzip can read it (`unzip -p int8.tflite labels.txt`). A SavedModel has the same files in
`assets.extra/`, which TensorFlow leaves to users.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.errors import UserError
from tas_tf.files import DAMAGED_ZIP
from tas_tf.objectives.classification import Classification
from tas_tf.version import __version__

LABELS_FILE = "labels.txt"
METADATA_FILE = "metadata.json"
EXTRA_FOLDER = "assets.extra"
# Errors of reading, by place of the damage: in the archive's headers, its contents, the text or the JSON.
_DAMAGE = (OSError, *DAMAGED_ZIP, TypeError)
# A fixed date, so that the same contents give the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Metadata:
    """Description of a network for programs that run it.

    Attributes:
        network: Name of the network.
        labels: Names of the classes, in the order of the outputs; for a single decision, those of no and yes.
        input_shape: Height, width and channels of an image, or the shape of another kind of input.
        preprocessing: Preprocessing that the network was trained with.
        inside: Whether preprocessing is part of the graph, which then takes pixels.
        probabilities: Whether outputs are probabilities rather than logits.
        shape: Content of `shape.json`; `None` if the network wasn't searched.
        task: What the network is for, one of `tas_tf.objectives.choose.TASKS`.
        resize: How images of other proportions are brought to the input size, one of `RESIZE_WAYS`.
        inputs: Shape of each input by name, if there are several; `input_shape` is that of the images.
        outputs: What each output is, by name, if there are several: its `task`, the number of its `outputs` (for each
            pixel, if it is per pixel), whether they are `probabilities`, `logits` or `values`, and its `labels` if
            they are known.
        input_range: Lowest and highest value of some training images, as the network takes them. `export_tflite`
            compares calibration images with it; files don't hold it.

    Example:
        >>> import tas_tf
        >>> found = tas_tf.Metadata("mine", ["cat", "dog"], (32, 32, 3), tas_tf.Preprocessing(), False, True)
        >>> found.describe("fp32")["output"]
        'probabilities'
    """

    network: str
    labels: Sequence[str]
    input_shape: tuple[int, ...]
    preprocessing: Preprocessing
    inside: bool
    probabilities: bool
    shape: Mapping[str, Any] | None = None
    task: str = Classification.task
    resize: str = "squash"
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input_range: tuple[float, float] | None = None

    def describe(self, format: str) -> dict[str, Any]:
        """Returns the content of `metadata.json` for a file in a format.

        The entry `input` says how to turn RGB pixels from 0 to 255 into the network's input: reverse the channels if
        `channel_order` is `bgr`, then compute `pixels * scale + offset`. If the file's input is quantised, quantise the
        result with the input's parameters. `resize` says how images of other proportions get the right size: `squash`
        changes their proportions, `crop` cuts borders off, `pad` adds black ones.
        """
        outside = Preprocessing("none") if self.inside else self.preprocessing
        size: dict[str, Any] = {"shape": list(self.input_shape)}
        if len(self.input_shape) == 3:
            size = dict(zip(("height", "width", "channels"), self.input_shape, strict=True))
        several = {"inputs": {name: list(shape) for name, shape in self.inputs.items()}, "outputs": dict(self.outputs)}
        return {
            "tas_tf": __version__,
            "network": self.network,
            "format": format,
            "input": {
                **{**size, "resize": self.resize},
                **outside.affine(),
                **{"preprocessing": self.preprocessing.kind, "inside": self.inside},
            },
            "task": self.task,
            "output": "several" if self.outputs else kind_of_output(self.task, self.probabilities),
            "shape": self.shape,
            **{name: each for name, each in several.items() if each},
        }

    def files(self, format: str) -> dict[str, bytes]:
        """Returns the contents of the two files, by name."""
        labels = "".join(f"{' '.join(label.split())}\n" for label in self.labels)
        description = json.dumps(self.describe(format), separators=(",", ":"))
        return {LABELS_FILE: labels.encode(), METADATA_FILE: description.encode()}


def kind_of_output(task: str, probabilities: bool) -> str:
    """What the numbers of an output are, in a word.

    >>> kind_of_output("regression", False), kind_of_output("binary", True)
    ('values', 'probabilities')
    """
    return "values" if task == "regression" else "probabilities" if probabilities else "logits"


def append_files(flatbuffer: bytes, files: Mapping[str, bytes]) -> bytes:
    """Appends files to a TFLite model, as an uncompressed zip archive."""
    buffer = io.BytesIO(flatbuffer)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def without_files(content: bytes) -> bytes:
    """Returns a TFLite model without the files behind it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            starts = [entry.header_offset for entry in archive.infolist()]
    except zipfile.BadZipFile:  # there are none
        return content
    return content[: min(starts, default=len(content))]


def write_extra(saved_model: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a SavedModel that is being written."""
    folder = saved_model / EXTRA_FOLDER
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads the metadata of a `.tflite` file or a SavedModel folder.

    Returns:
        The dictionary of `Metadata.describe`, with `labels` added.

    Raises:
        UserError: If the file is missing or has no readable metadata.

    Example:
        ```python
        print(tas_tf.read_metadata("student_fp32.tflite")["labels"])
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
        raise UserError(f"`path` must be a file exported with metadata. Received: {path} ({error}).") from error


def read_labels(path: Path) -> list[str]:
    """Names of the classes in a `.tflite` file; none if it has no metadata."""
    return read_metadata(path)["labels"] if zipfile.is_zipfile(path) else []
