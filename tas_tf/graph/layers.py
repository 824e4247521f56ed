"""From a node to its layer: found in the model that was read, or made anew, and called as the node says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.nodes import Node, map_refs


def original_layer(model: keras.Model, node: Node) -> keras.Layer:
    """The layer of `model` that `node` was read from; nested models are walked down."""
    layer = model
    for name in node.path:
        layer = layer.get_layer(name)
    return layer


def make_layer(node: Node, config: Mapping[str, Any] | None = None) -> Any:
    """Makes the layer or operation that a node describes.

    Args:
        node: The node.
        config: Config to use in place of the node's own.

    Raises:
        UserError: Keras can't make it; the class may not be registered.
    """
    entry = {
        "module": node.module or None,
        "class_name": node.class_name,
        "config": dict(node.config if config is None else config),
        "registered_name": node.registered_name,
    }
    try:
        return keras.saving.deserialize_keras_object(entry)
    except (TypeError, ValueError, ImportError, KeyError, AttributeError) as error:
        raise UserError(
            f"Layer `{node.name}` ({node.class_name}) can't be made again from its config: "
            f"{first_line(error)} Register its class with "
            "`keras.saving.register_keras_serializable` and import it before."
        ) from error


def call_layer(layer: Any, node: Node, tensors: Mapping[str, Any]) -> Any:
    """Calls a layer, or another callable, with the arguments that a node was called with.

    Args:
        layer: What to call.
        node: Holds the arguments.
        tensors: Stand in for tensors among the arguments, by the name of the node that makes them.
    """
    args, kwargs = map_refs((node.args, node.kwargs), lambda ref: tensors[ref.name])
    return layer(*args, **kwargs)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
