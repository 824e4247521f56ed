"""Reads what a model's file says about its layers, without making them, and tells other kinds of files."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
#: Suffixes of files that are or once were networks.
SUFFIXES = (".keras", ".h5", ".hdf5", *_OTHER_FORMATS)


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
            return _read_hdf5(path) if h5py.is_hdf5(path) else _read_zip(path)
        except UserError:
            raise
        except (OSError, *DAMAGED_ZIP, TypeError, AttributeError) as error:
            raise UserError(f"`model`: {path} is damaged or isn't a `.keras` file, which is a zip archive.") from error

    @property
    def is_old(self) -> bool:
        """Whether Keras 2, or tf_keras, wrote the file; early versions didn't say which they are."""
        return not self.keras_version or self.keras_version.startswith(("1.", "2."))

    def layers_with(self, *names: str) -> list[str]:
        """Names of the layers of one of these classes, or whose settings name one of these functions."""
        return list(dict.fromkeys(_layers_with(self.config, frozenset(names), None)))

    def configs_of(self, class_name: str) -> list[Mapping[str, Any]]:
        """Configs of the layers of a class."""
        return [entry["config"] for entry in _entries(self.config) if entry["class_name"] == class_name]

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


def _read_zip(path: Path) -> SavedNetwork:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
    return SavedNetwork(config, str(metadata.get("keras_version", "3")), {**(config.get("compile_config") or {})})


def _read_hdf5(path: Path) -> SavedNetwork:
    with h5py.File(path) as file:
        config, version, compiled = (
            file.attrs.get(name) for name in ("model_config", "keras_version", "training_config")
        )
    if config is None:
        raise UserError(f"`model`: {path} {_WEIGHTS_ALONE}.")
    given = (config, version or "", compiled or "{}")
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in given]
    return SavedNetwork(json.loads(texts[0]), texts[1], {**json.loads(texts[2])})


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yields everything that has a class and a config, from outside to inside."""
    if isinstance(value, Mapping):
        if "class_name" in value and isinstance(value.get("config"), Mapping):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _entries(item)


def _layers_with(value: Any, names: frozenset[str], layer: str | None) -> Iterator[str]:
    if isinstance(value, Mapping):
        config = value.get("config")
        if "class_name" in value and isinstance(config, Mapping) and "name" in config:
            layer = config["name"]
        # A layer may be called like a class.
        values: Any = [item for key, item in value.items() if key not in ("name", "inbound_nodes")]
    elif isinstance(value, list):
        values = value
    else:
        if isinstance(value, str) and value in names and layer is not None:
            yield layer
        return
    for item in values:
        yield from _layers_with(item, names, layer)
