"""Which classes and functions the file of a model may name: those that only compute."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import keras

from tas_tf.zoo.saved import walk

#: Modules of Keras whose classes a file may name. Others load data, read and write files, or change settings.
_CLASSES = (
    *("", "activations", "constraints", "distillation", "dtype_policies", "initializers", "layers", "losses"),
    *("metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random", "regularizers"),
)
#: Modules of Keras whose functions a file may name.
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
#: Functions there that make objects from descriptions.
_PLUMBING = ("deserialize", "get", "serialize")
#: Modules of layers that networks of Keras 2 may have. Others read vocabularies, or hold models of other libraries.
_LAYERS = tuple(
    f"keras.src.layers.{name}."
    for name in (
        *("activations", "attention", "convolutional", "core", "merging", "normalization", "pooling"),
        *("regularization", "reshaping", "rnn", "preprocessing.image_preprocessing"),
    )
)
#: Classes of Keras 2 beside those of the same name in Keras 3.
_OLD = (
    *("Functional", "Model", "Sequential", "TFOpLambda", "SlicingOpLambda", "ThresholdedReLU"),
    *("Normalization", "Rescaling"),  # each in a module of its own in Keras 3
)
#: The module of initialisers outside Keras that networks of Keras 2 use, such as EfficientNetV2.
_TENSORFLOW = "tensorflow.python.ops.init_ops_v2"
#: What stands for values rather than objects.
_VALUES = ("TensorShape", "__bytes__", "__ellipsis__", "__numpy__", "__slice__", "__tensor__", "__tuple__")
#: Ends of the keys under which a text names an object.
_NAMING = ("activation", "constraint", "initializer", "regularizer")


class Stranger(NamedTuple):
    """A class or function that a file names though it isn't part of a network."""

    layer: str
    sort: str
    name: str


def find_stranger(config: Any) -> Stranger | None:
    """Finds what Keras 3 would use though it isn't part of a network, such as a function that reads files.

    Keras itself refuses Lambdas in its safe mode, and other packages than its own.

    Args:
        config: What a file says about a network, or about a loss.
    """
    for entry, layer in walk(config):
        if not (isinstance(entry, Mapping) and {"class_name", "config", "module"} <= entry.keys()):
            continue
        package, _, inside = str(entry["module"]).partition(".")
        room = inside.partition(".")[0]
        if package != "keras" or room in ("src", "engine"):  # Keras takes only classes of parts of models from there
            continue
        is_function = entry["class_name"] == "function"
        name = str(entry["config"] if is_function else entry["class_name"])
        rooms = _FUNCTIONS if is_function or not name[:1].isupper() else _CLASSES
        if room not in rooms or name in _PLUMBING:
            return Stranger(layer, "function" if rooms is _FUNCTIONS else "class", name)
    return None


def find_old_stranger(config: Any, *, registered: Mapping[str, Any], unsafe_load: bool) -> Stranger | None:
    """Finds what tf_keras would use though it can't be converted.

    tf_keras imports any module that a file names, and has layers beside Lambda that hold code.

    Args:
        config: What a file of Keras 2 says about a network.
        registered: Classes and functions that are registered with tf_keras.
        unsafe_load: Whether Python code inside the file may run.
    """
    known = {*_convertible(), *registered, *(("Lambda", "__lambda__") if unsafe_load else ())}
    for entry, layer in walk(config):
        if not isinstance(entry, Mapping):
            continue
        named: list[tuple[str, Any]] = [
            ("function", value) for key, value in entry.items() if key.endswith(_NAMING) and isinstance(value, str)
        ]
        if "class_name" in entry and entry["class_name"] not in _VALUES:
            sort = "function" if entry["class_name"] == "function" else "class"
            name = entry.get("config") if sort == "function" else entry["class_name"]
            other = entry.get("registered_name", name)
            if str(name if sort == "function" else other) not in registered:
                module = str(entry.get("module") or "keras")
                if module.partition(".")[0] not in ("keras", "tf_keras", "builtins") and module != _TENSORFLOW:
                    return Stranger(layer, sort, str(name))
                named += [(sort, name), *([] if other in (None, "function") else [(sort, other)])]
        for sort, name in named:
            if not (isinstance(name, str) and name in known):
                return Stranger(layer, sort, str(name))
    return None


@functools.cache
def _convertible() -> frozenset[str]:
    """Names of classes and functions that networks of Keras 2 may consist of, from Keras 3."""
    layers = {name for name, found in _classes(keras.layers) if found.__module__.startswith(_LAYERS)}
    settings = (keras.dtype_policies, keras.mixed_precision, keras.optimizers, keras.optimizers.schedules)
    others = {name for module in settings for name, _ in _classes(module)}
    rooms = [vars(getattr(keras, room)) for room in _FUNCTIONS if room != "ops"]  # Keras 2 has none
    functions = {name for room in rooms for name, found in room.items() if callable(found)}
    return frozenset({*layers, *others, *functions, *_OLD} - {"Lambda", *_PLUMBING})


def _classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    return ((name, found) for name, found in vars(module).items() if inspect.isclass(found))
