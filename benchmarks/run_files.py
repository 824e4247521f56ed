"""Whether files of runs are whole, and whether two of them say the same."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tas_tf.files import read_json

#: Records of a training's progress, the newest and the one before.
_STATES = ("progress.json", "previous.json")
_SAVED_MODEL = "saved_model.pb"
#: Entry of a checkpoint that says which objects it belongs to.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
#: What TensorFlow raises for damaged files.
_UNREADABLE = (tf.errors.OpError, RuntimeError, DecodeError)
#: What a report says about time and place, by the beginning of its name.
_OF_THE_CALL = (
    "seconds",
    "milliseconds",
    "latenc",
    "asked",
    "time",
    "median",
    "p10",
    "p90",
    "speed",
    "operators",
    "command",
)


def is_whole(path: Path) -> bool:
    """Whether a file of a run can be read; of the checkpoints of a training, one is enough."""
    try:
        if path.name in _STATES:
            return any(_is_state(path.with_name(name)) for name in _STATES)
        if path.name == _SAVED_MODEL:
            return bool(_saved_model(path))
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix in (".keras", ".npz"):
            with zipfile.ZipFile(path) as content:
                return content.testzip() is None
        elif path.suffix == ".tflite":
            return path.read_bytes()[4:8] == b"TFL3"
        elif path.suffix in (".html", ".cfg"):
            return path.read_text().rstrip().endswith("</html>" if path.suffix == ".html" else "")
    except (ValueError, zipfile.BadZipFile, *_UNREADABLE):
        return False
    return True


def _is_state(path: Path) -> bool:
    """Whether a record of a training's progress and the checkpoint that it names can be read."""
    try:
        _checkpoint(path.with_name(json.loads(path.read_text())["checkpoint"]))
    except (OSError, ValueError, KeyError, *_UNREADABLE):
        return False
    return True


def _saved_model(path: Path) -> dict[str, np.ndarray]:
    """The variables of a SavedModel, whose graph is read too."""
    saved_model_pb2.SavedModel.FromString(path.read_bytes())
    found = _checkpoint(path.parent / "variables" / "variables").values()
    # Keras numbers them anew each time, in any order.
    return {
        str(number): value for number, value in enumerate(sorted(found, key=lambda one: (one.shape, one.tobytes())))
    }


def _checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """All that a checkpoint holds."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name != _OBJECTS}


def is_same(found: Path, wanted: Path, moved: dict[str, str]) -> bool:
    """Whether two files say the same, apart from times.

    Args:
        found: A file.
        wanted: The other one.
        moved: Paths in the first file, and what they are in the other.
    """
    if not (is_whole(found) and is_whole(wanted)):
        return False
    if found.suffix == ".json":
        one, other = (json.dumps(_without_times(read_json(path)), sort_keys=True) for path in (found, wanted))
        return functools.reduce(lambda text, pair: text.replace(*pair), moved.items(), one) == other
    if found.suffix == ".keras":
        return _are_equal(*map(_weights, (found, wanted)))
    if found.name == _SAVED_MODEL:
        return _are_equal(*map(_saved_model, (found, wanted)))
    if found.suffix == ".index" and found.parent.name != "variables":  # those of a SavedModel are looked at with it
        return _are_equal(*(_checkpoint(path.with_suffix("")) for path in (found, wanted)))
    if found.suffix in (".tflite", ".npz", ".txt"):
        return found.read_bytes() == wanted.read_bytes()
    return True


def _are_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _weights(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found = {}
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as content:
        content.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not key.startswith(_OF_THE_CALL)}
        # TensorFlow numbers the functions of a SavedModel as they come in a process: longer numbers take more bytes.
        if isinstance(saved := kept.get("saved_model"), dict):
            kept["saved_model"] = {key: item for key, item in saved.items() if key != "bytes"}
        return {key: _without_times(item) for key, item in kept.items() if key not in ("digest", "inputs", "files")}
    return [_without_times(item) for item in value] if isinstance(value, list) else value
