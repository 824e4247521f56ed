"""Functional operations and hard activations, which Keras 2 lacks, as layers of Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tas_tf.graph.kinds import ACTIVATION_BY_CLASS
from tas_tf.graph.nodes import Node, Ref

_layers = tf_keras.layers
#: Operations on several tensors.
_MERGES: Mapping[str, type] = {
    name: getattr(_layers, name) for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
}


def operation_as_layer(node: Node) -> Callable[..., Any] | None:
    """A function that does what a functional operation does, by layers of Keras 2; None if there is none.

    Args:
        node: The operation. The function takes its call arguments.
    """
    values = [*node.args, *node.kwargs.values()]
    tensors = [value for value in values if isinstance(value, Ref)]
    if node.class_name in _MERGES and len(tensors) == len(values) == 2:
        return lambda *args, **kwargs: _MERGES[node.class_name](name=node.name)([*args, *kwargs.values()])
    linear = _as_linear(node.class_name, values)
    if linear is not None:
        return _on_tensor(_layers.Rescaling(*linear, name=node.name))
    if node.class_name == "ReLU":
        return _on_tensor(_layers.ReLU(**_options(node, "max_value", "negative_slope", "threshold"), name=node.name))
    if node.class_name == "Relu6":
        return _on_tensor(_layers.ReLU(6.0, name=node.name))
    known = ACTIVATION_BY_CLASS.get(node.class_name)
    names = () if known is None or len(tensors) != len(values) else known.names
    composed = next((COMPOSED[name] for name in names if name in COMPOSED), None)
    if composed is not None:
        return _on_tensor(lambda x: composed(x, node.name))
    shared = next((name for name in names if hasattr(tf_keras.activations, name)), None)
    return None if shared is None else _on_tensor(_layers.Activation(shared, name=node.name))


def _as_linear(class_name: str, values: list[Any]) -> tuple[float, float] | None:
    """Scale and offset of arithmetic between a tensor and a number."""
    numbers = [float(value) for value in values if not isinstance(value, Ref) and np.ndim(value) == 0]
    if len(values) != 2 or len(numbers) != 1:
        return None
    (number,), tensor_first = numbers, isinstance(values[0], Ref)
    if class_name == "Add":
        return 1.0, number
    if class_name == "Subtract":
        return (1.0, -number) if tensor_first else (-1.0, number)
    if class_name == "Multiply":
        return number, 0.0
    if class_name in ("Divide", "TrueDivide") and tensor_first:
        return 1.0 / number, 0.0
    return None


def normalization_as_rescaling(config: Mapping[str, Any], rank: int) -> dict[str, Any] | None:
    """Config of a Rescaling that equals a Normalization with known statistics of each channel, or None.

    Args:
        config: Config of the Normalization.
        rank: Number of axes of its input.
    """
    axis, mean, variance = config.get("axis", -1), config.get("mean"), config.get("variance")
    axes = [axis] if isinstance(axis, int) else list(axis or [])
    per_channel = all(each % rank == rank - 1 for each in axes)
    if mean is None or variance is None or config.get("invert") or not per_channel:
        return None
    scale = 1 / np.maximum(np.sqrt(np.asarray(variance, np.float64)), tf_keras.backend.epsilon())
    offset = -np.asarray(mean, np.float64) * scale
    return {"scale": scale.tolist(), "offset": offset.tolist(), "name": config["name"]}


def _on_tensor(layer: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A function that finds the tensor among the call arguments of an operation, and applies the layer to it."""

    def apply(*args: Any, **kwargs: Any) -> tf.Tensor:
        tensor = next(value for value in (*args, *kwargs.values()) if len(getattr(value, "shape", ())))
        return layer(tensor)

    return apply


def _options(node: Node, *names: str) -> dict[str, Any]:
    return {name: node.config[name] for name in names if node.config.get(name) is not None}


def _hard_sigmoid(x: tf.Tensor, name: str) -> tf.Tensor:
    x = _layers.ReLU(6.0, name=f"{name}_clip")(_layers.Rescaling(1.0, 3.0, name=f"{name}_shift")(x))
    return _layers.Rescaling(1 / 6, name=f"{name}_scale")(x)


def _hard_silu(x: tf.Tensor, name: str) -> tf.Tensor:
    return _layers.Multiply(name=f"{name}_product")([x, _hard_sigmoid(x, name)])


#: Activations that Keras 2 lacks or defines differently, as functions of a tensor and the beginning of layers' names.
COMPOSED: Mapping[str, Callable[[tf.Tensor, str], tf.Tensor]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
}
