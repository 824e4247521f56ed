"""Finds a node's layer in the original model, makes a new one, and calls it with the node's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.composite import inner_layer
from tas_tf.graph.nodes import Node, map_refs


def original_layer(model: keras.Model, node: Node) -> keras.Layer:
    """Finds the layer of `model` that `node` was read from, inside nested models too."""
    layer = model
    for name in node.path:
        layer = inner_layer(layer, name)
    return layer


def make_layer(node: Node, config: Mapping[str, Any] | None = None) -> Any:
    """Makes the layer or operation that a node describes.

    Args:
        node: Description of the layer.
        config: Replaces the node's own config.

    Raises:
        UserError: If Keras can't make the layer, for example because its class isn't registered.
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
            "`keras.saving.register_keras_serializable` and import it first."
        ) from error


def call_layer(layer: Any, node: Node, tensors: Mapping[str, Any]) -> Any:
    """Calls a layer, or another callable, with the call arguments of a node.

    Args:
        layer: The callable.
        node: Node whose arguments are used.
        tensors: Tensors to insert into the arguments, by the name of the node that makes each.
    """
    args, kwargs = map_refs((node.args, node.kwargs), lambda ref: tensors[ref.name])
    return layer(*args, **kwargs)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
