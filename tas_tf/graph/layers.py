"""Finds a node's layer in the original model, makes a new one, and calls it with the node's arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.composite import inner_layer
from tas_tf.graph.nodes import Node, map_refs

#: What a layer may consist of; a layer within a layer stands inside a wrapper.
_PARTS = (keras.Layer, keras.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)


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
        # A graph has a Lambda only if the user has accepted its code.
        return keras.saving.deserialize_keras_object(entry, safe_mode=node.class_name != "Lambda")
    except Exception as error:  # Keras and the user's class may raise anything
        raise UserError(
            f"Layer `{node.name}` ({node.class_name}) can't be made again from its config: "
            f"{first_line(error)} If its class is your own, check its `get_config`, and give the Python file that "
            "defines the class and its functions as `custom_objects`."
        ) from error


def make_layer_known(layer: Any) -> None:
    """Makes the class of a layer known to Keras, and its functions, unless they are Keras's own.

    A class defined in a script or a notebook can't be imported; Keras finds it only if it is known.
    """
    parts = [value for value in vars(layer).values() if isinstance(value, _PARTS)]
    used = [*map(type, (layer, *parts)), *(getattr(layer, name, None) for name in ("activation", "function"))]
    for one in used:
        is_named = inspect.isclass(one) or (inspect.isfunction(one) and one.__name__ != "<lambda>")
        if is_named and not is_from_keras(one):
            keras.saving.get_custom_objects()[keras.saving.get_registered_name(one)] = one
    for part in parts:
        if isinstance(part, keras.Layer):
            make_layer_known(part)


def is_from_keras(found: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return found.__module__.split(".")[0] == "keras"


def copy_layer(layer: Any, **changes: Any) -> Any:
    """Makes a layer or operation with the same config and new weights.

    Args:
        layer: The layer. The code of a Lambda layer runs in the copy.
        **changes: Other values for entries of the config.
    """
    config = {**layer.get_config(), **changes}
    if isinstance(layer, keras.layers.Lambda):
        return type(layer).from_config(config, safe_mode=False)
    return type(layer).from_config(config)


def copy_model(model: keras.Model, config: Mapping[str, Any] | None = None) -> keras.Model:
    """Makes a copy of a functional or Sequential model with the same weights.

    Args:
        model: The model. Its own code runs in the copy, that of Lambda layers too.
        config: Replaces the model's own config.
    """
    for layer in every_layer(model):
        make_layer_known(layer)
    entry = keras.saving.serialize_keras_object(model)
    entry.pop("compile_config", None)
    if config is not None:
        entry["config"] = config
    copy = keras.saving.deserialize_keras_object(entry, safe_mode=False)
    copy.set_weights(model.get_weights())
    return copy


def plain_model(model: keras.Model) -> keras.Model:
    """A functional model of the same layers, without losses and metrics, which a compiled model would pass on."""
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.output
    return keras.Model(inputs, outputs, name=model.name)


def every_layer(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers of a model; a nested model is replaced by its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and hasattr(layer, "layers"):
            yield from every_layer(layer)
        else:
            yield layer


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
    """The first line of an error's message without the configs that Keras appends, or the name of its class."""
    plain = re.split("(?:Exception|Error) encountered:", re.sub(r"\x1b\[\d+m", "", str(error)))[-1]
    lines = [line for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    wrapped = lines[0].startswith("Exception encountered when calling") and len(lines) > 1
    return lines[wrapped].strip().partition(" Full object config:")[0]
