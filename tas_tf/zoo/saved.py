"""Reads what a model's file says about its layers, without making them, and tells other kinds of files."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import h5py

from tas_tf.errors import UserError
from tas_tf.files import DAMAGED_ZIP
from tas_tf.graph.custom import ALONE
from tas_tf.graph.layers import first_line

_SAVE = 'save it with `model.save("mine.keras")`'
_CHECKPOINT = f"is a TensorFlow checkpoint: weights alone. Build the network, load the checkpoint into it, and {_SAVE}"
#: What to do about files that aren't Keras models with their structure, by suffix.
_OTHER_FORMATS = {
    **dict.fromkeys(
        (".tflite", ".lite"), "is a TFLite file, which holds no layers. Give the Keras model that it was converted from"
    ),
    ".onnx": f"is an ONNX file. Build the network with Keras, copy the weights, and {_SAVE}",
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".bin", ".safetensors"),
        f"holds weights, of PyTorch for example, without Keras layers. Build the network with Keras, copy the weights, "
        f"and {_SAVE}",
    ),
    ".pb": f"is a TensorFlow graph, which holds no layers. Load the Keras model that it was made from, and {_SAVE}",
    **dict.fromkeys(
        (".index", ".data-00000-of-00001"),
        _CHECKPOINT,
    ),
    ".json": f"holds layers without weights. Make the model with `keras.models.model_from_json`, load its weights, and "
    f"{_SAVE}",
    **dict.fromkeys(
        (".caffemodel", ".mlmodel", ".mlpackage", ".npz", ".msgpack"),
        f"holds no Keras layers. Build the network with Keras, copy the weights, and {_SAVE}",
    ),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), f"is a pickled object. Unpickle the model in Python, and {_SAVE}"),
}
_WEIGHTS_ALONE = f"holds weights alone. Build the network, call `model.load_weights` with this file, and {_SAVE}"
_SAVED_MODEL = f"is a SavedModel, which holds no layers that can change. Load the original Keras model, and {_SAVE}"
_SAVED_MODEL_OF_KERAS_2 = (
    f"is a SavedModel of Keras 2. Load it with `tf_keras.models.load_model` in Python, and {_SAVE}"
)
_HDF5_SUFFIXES = (".h5", ".hdf5")
#: Suffixes of files that are or once were networks.
SUFFIXES = (".keras", *_HDF5_SUFFIXES, *_OTHER_FORMATS)
# What HDF5 files of weights hold, of Keras 3 and 2.
_WEIGHTS = ("layers", "_layer_checkpoint_dependencies", "model_weights")


def refuse_other_formats(path: Path) -> None:
    """Refuses what isn't a file of a whole Keras model.

    Raises:
        UserError: The path isn't such a file; the message says what to do instead.
    """
    advice = _OTHER_FORMATS.get(path.suffix.lower())
    if (path / "saved_model.pb").is_file():
        advice = _SAVED_MODEL_OF_KERAS_2 if (path / "keras_metadata.pb").is_file() else _SAVED_MODEL
    elif path.name.endswith(".weights.h5"):
        advice = _WEIGHTS_ALONE
    if path.with_name(f"{path.name}.index").is_file():
        advice = _CHECKPOINT
    elif not path.exists():
        raise UserError(f"`model`: there is no file {path}.")
    if advice is not None:
        raise UserError(f"`model`: {path} {advice}.")
    if path.is_dir():
        raise UserError(f"`model`: {path} is a folder. Expected a file of a Keras model, such as mine.keras.")
    if path.suffix.lower() in _HDF5_SUFFIXES and zipfile.is_zipfile(path) and not h5py.is_hdf5(path):
        raise UserError(f"`model`: {path} is an archive as `.keras` files are. Rename it so that it ends in .keras.")


@dataclass(frozen=True)
class SavedNetwork:
    """What a file says about a network.

    Attributes:
        config: The network's config, as its version of Keras writes it.
        keras_version: Version of Keras that wrote the file; empty if an HDF5 file doesn't say.
        compiled: What the network was compiled with; empty if it wasn't.
    """

    config: Mapping[str, Any] = field(repr=False)
    keras_version: str
    compiled: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> SavedNetwork:
        """Reads a file of a whole model: `.keras`, or HDF5 whatever its suffix.

        Raises:
            UserError: The file is damaged, or isn't one of a whole model.
        """
        try:
            return _read_hdf5(path) if _is_hdf5(path) else _read_zip(path)
        except UserError:
            raise
        except (OSError, *DAMAGED_ZIP, TypeError, AttributeError, SystemError) as error:  # h5py raises the last one too
            raise _damaged(path) from error

    @property
    def is_old(self) -> bool:
        """Whether Keras 2, or tf_keras, wrote the file; early versions didn't say which they are."""
        return not self.keras_version or self.keras_version.startswith(("1.", "2."))

    def layers_with(self, *names: str) -> list[str]:
        """Names of the layers of one of these classes, or whose settings name one of these functions."""
        # A layer may be called like a class.
        found = walk(self.config, skipped=("name", "inbound_nodes"))
        return list(dict.fromkeys(layer for value, layer in found if isinstance(value, str) and value in names))

    def explain(self, error: Exception) -> str:
        """The error that Keras raised for the file, with the layer that it is about.

        Args:
            error: The error.
        """
        text = str(error).strip() or type(error).__name__
        if missing := re.findall(r"(?:Could not locate|Unknown) (\w+):? '(?:[^'>]+>)?(\w+)'", text):
            sort, name = "function" if missing[-1][0] == "function" else "class", missing[-1][1]
            names = self.layers_with(name)
            needed = f"layer `{names[0]}` needs the {sort} {name}" if names else f"there is no {sort} {name}"
            return (
                f"{needed}, which isn't known. Give the Python file that defines it as `custom_objects`, such as "
                "my_layers.py."
            )
        if "calling Lambda.call()" in text:
            return f"the code of a Lambda layer ({', '.join(self.layers_with('Lambda'))}) doesn't run. {ALONE}"
        called = re.findall(r"calling (\w+)\.call\(\)", text)
        if names := self.layers_with(*called[-1:]):
            return f"layer `{names[0]}` ({called[-1]}) can't be called: {first_line(error)}"
        failed = re.findall(r"(?:<class '(?:[\w.]+\.)?|deserializing class ')(\w+)'>? ?(?:could|using)", text)
        if names := self.layers_with(*failed[-1:]):
            return f"layer `{names[0]}` ({failed[-1]}) can't be made from its config: {first_line(error)}"
        return re.split(r"\n|(?<=[.!]) ", text)[0]


def refuse_links(path: Path) -> None:
    """Refuses a file that leads to others: members beside an archive, and links and external data of HDF5.

    Such a file could write over files of the user, or bring what only the user may read into the network's weights.

    Raises:
        UserError: The file leads to others, or is damaged.
    """
    try:
        if _is_hdf5(path):
            with h5py.File(path) as file:
                _refuse_links_of(file, path)
            return
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if "\\" in name or ".." in name.split("/") or PurePosixPath(name).is_absolute() or ":" in name:
                    raise _leads_out(path, f"{name!r} lies outside the archive")
            for name in archive.namelist():
                if name.endswith(".h5"):
                    with h5py.File(io.BytesIO(archive.read(name))) as file:
                        _refuse_links_of(file, path)
    except UserError:
        raise
    except (OSError, *DAMAGED_ZIP, SystemError) as error:
        raise _damaged(path) from error


def _refuse_links_of(file: h5py.File, path: Path) -> None:
    # h5py ends a visit at the first answer; errors that a callback raises get lost in it.
    def check_link(name: Any, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"{name!r} is a link"

    def check_data(name: str, item: Any) -> str | None:
        is_outside = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        return f"the data of {name!r} lie elsewhere" if is_outside else None

    if reason := file.visititems_links(check_link) or file.visititems(check_data):
        raise _leads_out(path, reason)


def _leads_out(path: Path, reason: str) -> UserError:
    return UserError(f"`model`: {path} reaches for other files: {reason}. Keras writes no such files.")


def _damaged(path: Path) -> UserError:
    kind = "an HDF5 file" if path.suffix.lower() in _HDF5_SUFFIXES else "a `.keras` file, which is a zip archive"
    return UserError(f"`model`: {path} is damaged or isn't {kind}.")


def _is_hdf5(path: Path) -> bool:
    """Whether Keras reads a file as HDF5; one file can be HDF5 and a zip archive at once."""
    is_archive = path.name.endswith(".keras") and zipfile.is_zipfile(path)
    return not is_archive and h5py.is_hdf5(path)


def _read_zip(path: Path) -> SavedNetwork:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    # Networks are loaded without what they were compiled with.
    compiled = config.pop("compile_config", None) or {}
    return SavedNetwork(config, str(metadata.get("keras_version", "3")), {**compiled})


def _read_hdf5(path: Path) -> SavedNetwork:
    with h5py.File(path) as file:
        config, version, compiled = (
            file.attrs.get(name) for name in ("model_config", "keras_version", "training_config")
        )
        has_weights = "layer_names" in file.attrs or any(name in file for name in _WEIGHTS)
    if config is None and not has_weights:
        raise UserError(f"`model`: {path} is an HDF5 file without a Keras model.")
    if config is None:
        raise UserError(f"`model`: {path} {_WEIGHTS_ALONE}.")
    given = (config, version or "", compiled or "{}")
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in given]
    return SavedNetwork(json.loads(texts[0]), texts[1], {**json.loads(texts[2])})


def walk(config: Any, *, skipped: Collection[str] = ()) -> Iterator[tuple[Any, str]]:
    """Yields everything in a config, from outside to inside, with the name of the layer to which it belongs.

    Args:
        config: Config of a network, as its file has it.
        skipped: Keys whose values are left out.
    """
    # A stack of its own: a file may be nested more deeply than Python's functions can be.
    waiting: list[tuple[Any, str]] = [(config, "model")]
    while waiting:
        value, layer = waiting.pop()
        items: list[Any] = value if isinstance(value, list) else []
        if isinstance(value, Mapping):
            inner = value.get("config")
            if "class_name" in value and isinstance(inner, Mapping) and "name" in inner:
                layer = str(inner["name"])
            items = [item for key, item in value.items() if key not in skipped]
        yield value, layer
        waiting += [(item, layer) for item in reversed(items)]
