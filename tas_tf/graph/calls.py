"""Lists the calls in a Keras model's public config, in the order in which the config names its layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.models.functional import Functional  # not public, but it alone has the `call` that runs the graph

from tas_tf.errors import UserError
from tas_tf.graph.nodes import Ref

_FUNCTIONAL_CALLS = (Functional.call, keras.Sequential.call)


@dataclass(frozen=True)
class Call:
    """One call of a layer, an operation or a nested model.

    Attributes:
        entry: The layer's entry in the config.
        layer: The layer's name in its model.
        number: Which of the layer's calls this is, from 0.
        args: Call arguments, with each tensor as a `Ref` to its `tensor_key`.
        kwargs: Further call arguments.
        in_training: Whether the layer is called with `training=True`.
    """

    entry: Mapping[str, Any]
    layer: str
    number: int = 0
    args: tuple = ()
    kwargs: Mapping[str, Any] = ()
    in_training: bool = False


@dataclass(frozen=True)
class Calls:
    """All calls of a model, and the keys of the tensors that it reads and makes."""

    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def tensor_key(layer: str, number: int = 0, output: int = 0) -> str:
    """Names a tensor within its model: an output of one of the calls of a layer."""
    return f"{layer}/{number}/{output}"


def is_graph(model: Any) -> bool:
    """Whether a model is a graph of layers: functional or Sequential, or a subclass that computes nothing itself.

    A subclass may change training and saving. If it has a `call` of its own, it may do anything there.
    """
    return isinstance(model, keras.Model) and type(model).call in _FUNCTIONAL_CALLS


def list_calls(model: keras.Model) -> Calls:
    """Lists the calls of a functional or Sequential model.

    Raises:
        UserError: If the model contains a layer without a config.
    """
    try:
        if isinstance(model, keras.Sequential):
            return _calls_in_sequence(model)
        # The config of a subclass may be anything: take that of a plain model with the same layers.
        plain = model if type(model) is Functional else keras.Model(model.input, model.output, name=model.name)
        return _functional_calls(plain, _config(plain))
    except NotImplementedError as error:
        named = next(filter(_lacks_config, model.layers), model)
        raise UserError(
            f"Layer `{named.name}` ({type(named).__name__}) has no config: {str(error).strip().splitlines()[0]} "
            "Give its class a `get_config` method."
        ) from error


def _lacks_config(layer: Any) -> bool:
    """Whether a class has no `get_config`: Keras's own one raises NotImplementedError then."""
    try:
        layer.get_config()
    except NotImplementedError:
        return True
    return False


def _calls_in_sequence(model: keras.Sequential) -> Calls:
    entries = keras.Sequential.get_config(model)["layers"]
    if entries[0]["class_name"] != "InputLayer":
        entries = [_input_entry(model), *entries]
    names = [entry.get("name") or entry["config"]["name"] for entry in entries]
    calls = [Call(entries[0], names[0])]
    calls += [
        Call(entry, name, args=(Ref(tensor_key(before)),))
        for before, name, entry in zip(names, names[1:], entries[1:], strict=False)
    ]
    return Calls(tuple(calls), (tensor_key(names[0]),), (tensor_key(names[-1]),))


def _input_entry(model: keras.Sequential) -> dict:
    config = {"batch_shape": tuple(model.inputs[0].shape), "dtype": model.inputs[0].dtype, "name": "images"}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def _config(model: keras.Model) -> dict[str, Any]:
    try:
        return model.get_config()
    except NotImplementedError:

        def replace(layer: Any) -> Any:
            same = type(layer) is not keras.layers.Identity
            return layer if same else keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)

        # Keras can't describe an Identity that was made with a policy instead of the policy's name.
        return keras.models.clone_model(model, clone_function=replace).get_config()


def _functional_calls(model: keras.Model, config: Mapping[str, Any]) -> Calls:
    calls = [call for entry in config["layers"] for call in _calls_of(entry)]
    models = {layer.name for layer in model.layers if isinstance(layer, Functional)}

    def key(layer: str, number: int, output: int) -> str:
        # Functional models count their own graph as a call, except where their outputs are call arguments.
        return tensor_key(layer, number - (layer in models), output)

    inputs, outputs = (
        tuple(key(*place) for place in _places(config[name])) for name in ("input_layers", "output_layers")
    )
    return Calls(tuple(calls), inputs, outputs)


def _calls_of(entry: Mapping[str, Any]) -> Iterator[Call]:
    name = entry.get("name") or entry["config"]["name"]
    for number, call in enumerate(entry["inbound_nodes"]):
        kwargs = {
            key: value
            for key, value in call["kwargs"].items()
            if not (key == "mask" and value is None) and key != "training"
        }
        in_training = bool(call["kwargs"].get("training"))
        yield Call(entry, name, number, _with_refs(tuple(call["args"])), _with_refs(kwargs), in_training)
    if not entry["inbound_nodes"]:
        yield Call(entry, name)


def _places(value: Any) -> Iterator[tuple[str, int, int]]:
    """Yields the `["name", 0, 0]` inside lists and dictionaries, in the order in which Keras flattens them."""
    if isinstance(value, Mapping):
        value = [value[key] for key in (value if isinstance(value, OrderedDict) else sorted(value))]
    if value and isinstance(value[0], str):
        yield tuple(value)
        return
    for item in value:
        yield from _places(item)


def _with_refs(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            return Ref(tensor_key(*value["config"]["keras_history"]))
        if "class_name" in value and "config" in value:  # arrays, slices
            return keras.saving.deserialize_keras_object(value)
        return {key: _with_refs(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_refs, value))
    return value
