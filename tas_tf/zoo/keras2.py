"""Converts a network that Keras 2 or tf_keras saved to Keras 3, layer by layer, and compares the outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tas_tf.errors import UserError
from tas_tf.extras import require_extra
from tas_tf.graph.layers import first_line
from tas_tf.zoo.keras2_ops import OPERATIONS
from tas_tf.zoo.saved import SavedNetwork, walk
from tas_tf.zoo.trusted import find_old_stranger

# Largest difference of outputs, relative to the largest output, that rounding explains.
_TOLERANCE = 1e-3
_TINY = np.finfo(np.float32).tiny
# Image size where the network takes any.
_SIZE = 64
#: Arguments with other names in Keras 3, by class.
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "ThresholdedReLU": {"theta": "threshold"}}
#: Classes with other names in Keras 3.
_CLASSES = {"ThresholdedReLU": "ReLU"}
#: Classes that hold a function of TensorFlow.
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
#: Classes that hold operations of any kind.
_UNREADABLE = ("TensorFlowOp", "TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty")
_ADVICE = 'Build the network with Keras 3 in Python, copy the weights, and save it with `model.save("mine.keras")`.'


def load_old_file(path: Path, saved: SavedNetwork, *, unsafe_load: bool, say: Callable[[str], None]) -> keras.Model:
    """Loads a file of Keras 2 or tf_keras, and converts the network to Keras 3.

    Args:
        path: The file.
        saved: What it says about the network.
        unsafe_load: Whether Python code inside the file may run.
        say: Called with a line about the conversion.

    Raises:
        UserError: tf_keras is missing or can't read the file, Keras 3 has no such layer, or outputs differ.
    """
    version = saved.keras_version or "2"
    require_extra("keras2", purpose=f"Reading {path}, a file of Keras {version},")
    import tf_keras

    for entry, layer in walk(saved.config):
        if isinstance(entry, Mapping) and isinstance(entry.get("config"), Mapping):
            _refuse_operation(str(entry.get("class_name")), layer, entry["config"].get("function"))
    registered = tf_keras.saving.get_custom_objects()
    if stranger := find_old_stranger(saved.config, registered=registered, unsafe_load=unsafe_load):
        raise UserError(
            f"`model`: {path}, a file of Keras {version}, can't be converted: layer `{stranger.layer}` needs the "
            f"{stranger.sort} {stranger.name}, which isn't one of Keras that can be taken over. {_ADVICE}"
        )

    try:
        old = tf_keras.models.load_model(path, compile=False, safe_mode=not unsafe_load)
    except Exception as error:  # Keras raises whatever its parts raise: zip, JSON, HDF5 and type errors
        raise UserError(
            f"`model`: {path}, a file of Keras {version}, can't be read: {saved.explain(error)} {_ADVICE}"
        ) from error
    converted = convert(old)
    difference = compare(old, converted)
    found = f"differ by at most {difference:.0e} of the largest" if difference else "are the same"
    say(f"{path} is a file of Keras {version}. The network was converted to Keras 3: outputs on random images {found}.")
    return converted


def _refuse_operation(class_name: str, layer: str, function: Any) -> None:
    """Refuses an operation that can't be converted; tf_keras calls any function of TensorFlow, and some write files."""
    if class_name in _UNREADABLE:
        raise _unconvertible(layer, class_name, "Keras 3 has nothing like it")
    if class_name in _OPERATIONS and not (isinstance(function, str) and _symbol(function) in OPERATIONS):
        raise _unconvertible(layer, class_name, f"Keras 3 has none like {function}")


def convert(old: Any) -> keras.Model:
    """Converts a functional or Sequential model of tf_keras, with its weights.

    Raises:
        UserError: The model is of another kind, or Keras 3 has no such layer.
    """
    return _Converter().model(old)


def compare(old: Any, converted: keras.Model) -> float:
    """Compares outputs on random images of two ranges.

    Returns:
        The largest difference, relative to the largest output.

    Raises:
        UserError: It is more than rounding explains.
    """
    random, worst = np.random.default_rng(0), 0.0
    for low, high in ((-1, 1), (0, 255)):
        images = [
            random.uniform(low, high, [2, *(size or _SIZE for size in tensor.shape[1:])]).astype("float32")
            for tensor in converted.inputs
        ]
        images = images[0] if len(images) == 1 else images
        pairs = zip(*(keras.tree.flatten(one(images, training=False)) for one in (old, converted)), strict=True)
        for expected, found in (map(np.asarray, pair) for pair in pairs):
            worst = max(worst, float(np.abs(found - expected).max() / max(np.abs(expected).max(), _TINY)))
    if not worst <= _TOLERANCE:
        raise UserError(
            f"`model`: converted from Keras 2, {old.name} makes outputs that differ by {worst:.1e} of the largest. "
            f"{_ADVICE}"
        )
    return worst


class _Converter:
    """Converts models that may share layers."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def model(self, old: Any) -> keras.Model:
        if not getattr(old, "_is_graph_network", False):
            raise UserError(
                f"`model`: `{old.name}` ({type(old).__name__}) is a subclassed model of Keras 2, whose structure can't "
                f"be read. {_ADVICE}"
            )
        tensors = {
            id(tensor): keras.Input(tensor.shape[1:], dtype=tensor.dtype.name, name=_name(layer))
            for tensor, layer in zip(old.inputs, old._input_layers, strict=True)
        }
        inputs = [tensors[id(tensor)] for tensor in old.inputs]
        nodes = [node for depth in sorted(old._nodes_by_depth, reverse=True) for node in old._nodes_by_depth[depth]]
        for node in nodes:
            if node.is_input:
                continue
            args, kwargs = _replaced((node.call_args, node.call_kwargs), tensors)
            outputs = self._call(node.layer, args, kwargs)
            for tensor, output in zip(*map(keras.tree.flatten, (node.outputs, outputs)), strict=True):
                tensors[id(tensor)] = output
            if not isinstance(self._made.get(id(node.layer)), keras.Model):
                _copy_weights(node.layer, self._made.get(id(node.layer)))
        outputs = [tensors[id(tensor)] for tensor in old.outputs]
        single = [one[0] if len(one) == 1 else one for one in (inputs, outputs)]
        return keras.Model(*single, name=_name(old))

    def _call(self, old: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        symbol = getattr(old, "symbol", None)
        try:
            if symbol is not None:
                outputs = OPERATIONS[_symbol(symbol)](*args, **kwargs)
                _rename(outputs, _name(old).replace(".", "_"), {id(one) for one in keras.tree.flatten((args, kwargs))})
                return outputs
            if id(old) not in self._made:
                self._made[id(old)] = self.model(old) if hasattr(old, "_nodes_by_depth") else _layer(old)
            given = {name: value for name, value in kwargs.items() if value is not None}
            return self._made[id(old)](*args, **given)
        except UserError:
            raise
        except Exception as error:  # Keras raises whatever its parts raise
            reason = f"Keras 3 has none like {symbol}" if isinstance(error, KeyError) and symbol else first_line(error)
            raise _unconvertible(old.name, type(old).__name__, reason) from error


def _unconvertible(name: str, class_name: str, reason: str) -> UserError:
    return UserError(f"`model`: layer `{name}` ({class_name}) can't be converted to Keras 3: {reason}. {_ADVICE}")


def _symbol(function: str) -> str:
    """The name of a TensorFlow function under which `OPERATIONS` has it."""
    return function.removeprefix("compat.v1.")


def _name(old: Any) -> str:
    return old.name.replace("/", "_")  # not allowed in Keras 3


def _rename(output: keras.KerasTensor, name: str, given: set[int], number: int = 1) -> int:
    """Names new operations after the old one; the names that Keras makes up may be those of layers.

    Args:
        output: What the operations make.
        name: Name of the old operation.
        given: Identities of the tensors that they read.
        number: Number of the next new operation.

    Returns:
        The number after the last operation.
    """
    if id(output) in given:
        return number
    operation = output._keras_history.operation
    operation.name = name if number == 1 else f"{name}_{number}"
    number += 1
    for tensor in operation._inbound_nodes[-1].input_tensors:
        number = _rename(tensor, name, given, number)
    return number


def _layer(old: Any) -> keras.layers.Layer:
    """Makes the layer of Keras 3 with the config of one of Keras 2."""
    name = type(old).__name__
    if name == "Lambda":
        return keras.layers.Lambda(old.function, arguments=old.arguments, name=_name(old))
    layer_class = getattr(keras.layers, _CLASSES.get(name, name), None)
    if layer_class is None or not type(old).__module__.startswith("tf_keras"):
        raise UserError(f"`model`: layer `{old.name}` is of the class {name}, which Keras 3 doesn't have. {_ADVICE}")
    renamed = _RENAMED.get(name, {})
    config = {renamed.get(key, key): value for key, value in old.get_config().items()}
    config["name"] = _name(old)
    config["dtype"] = old.dtype_policy.name if hasattr(old, "dtype_policy") else old.dtype
    if isinstance(config.get("axis"), (list, tuple)) and len(config["axis"]) == 1:
        (config["axis"],) = config["axis"]
    known = _arguments(layer_class)
    return layer_class.from_config({key: value for key, value in config.items() if key in known})


def _arguments(layer_class: type) -> set[str]:
    """Names of the arguments of a layer class; Keras 2 wrote others too, such as the `groups` of DepthwiseConv2D."""
    signatures = [inspect.signature(cls.__init__) for cls in layer_class.__mro__ if "__init__" in vars(cls)]
    return {name for signature in signatures for name in signature.parameters} - {"self", "args", "kwargs"}


def _copy_weights(old: Any, layer: Any) -> None:
    if layer is None:  # an operation
        return
    values = [weight for weight in old.weights if "StateVar" not in weight.name]  # states of random generators
    shapes, wanted = ([tuple(weight.shape) for weight in weights] for weights in (values, layer.weights))
    if shapes != wanted:
        raise UserError(
            f"`model`: the weights of layer `{old.name}` ({type(old).__name__}) don't fit Keras 3: {shapes} instead of "
            f"{wanted}. {_ADVICE}"
        )
    for weight, value in zip(layer.weights, values, strict=True):
        weight.assign(value.numpy())


def _replaced(value: Any, tensors: Mapping[int, Any]) -> Any:
    """Call arguments with tensors of Keras 3, plain numbers, and slices."""
    if id(value) in tensors:
        return tensors[id(value)]
    if isinstance(value, Mapping):
        if value.keys() == {"start", "stop", "step"}:
            return slice(*(_replaced(value[key], tensors) for key in ("start", "stop", "step")))
        return {key: _replaced(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, tensors) for item in value)
    if hasattr(value, "numpy"):
        array = np.asarray(value)
        return array if array.shape else array.item()
    return value
