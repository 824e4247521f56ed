"""Reads a Keras model's public config into nodes: inlines nested models, infers shapes, rejects unsupported layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tas_tf.errors import UserError
from tas_tf.graph.custom import check_declared, check_lambda, declared_kind, lambdas_are_accepted
from tas_tf.graph.head import GraphParts, split_softmax
from tas_tf.graph.kinds import Kind, is_op, kind_of
from tas_tf.graph.layers import call_layer, first_line, make_layer, make_layer_known
from tas_tf.graph.modes import check_mode, check_same_size
from tas_tf.graph.nodes import Node, Ref, list_refs, map_refs

_MODEL_CLASSES = ("Functional", "Sequential", "Model")
_SEQUENCE_CLASSES = ("TimeDistributed", "Bidirectional", "RNN", "LSTM", "GRU", "ConvLSTM2D")


def read_model(model: Any) -> GraphParts:
    """Reads a functional or Sequential Keras 3 classifier.

    Raises:
        UserError: If the model can't be described. The message names the layer and says what to do.
    """
    _check_model(model)
    reader = _Reader()
    output = reader.read(model, {}, ())
    nodes = _only_needed(reader.nodes, output)
    return split_softmax(model.name, nodes, output)


def _check_model(model: Any) -> None:
    if type(model).__module__.startswith(("tf_keras", "tensorflow.python.keras")):
        raise UserError(
            "`model` is a tf_keras (Keras 2) model. Expected a Keras 3 model. "
            "Save it and load it with `keras.models.load_model`."
        )
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` must be a Keras model. Received: {type(model).__name__}.")
    if not _is_graph(model):
        raise UserError(
            f"`model` is a subclassed model ({type(model).__name__}), whose structure can't be read. Expected a "
            "functional or Sequential model: rebuild it with `keras.Model(inputs, outputs)`."
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise UserError(
            f"`model` ({model.name}) has no input shape yet. "
            "Expected a built model: start it with `keras.Input(shape)`, or call it once."
        )
    for label, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(tensor.name for tensor in tensors)
            raise UserError(f"`model` must have one {label}. Received {len(tensors)} ({names}).")
    if any(size is None for size in model.inputs[0].shape[1:]):
        raise UserError(
            "`model` must have an input of fixed size, since its cost depends on it. "
            f"Received: {tuple(model.inputs[0].shape)}. Build it with `keras.Input((height, width, channels))`."
        )


def _is_graph(model: Any) -> bool:
    # A subclass may do anything in `call`, even if it was made from inputs and outputs.
    return type(model).__name__ in _MODEL_CLASSES and type(model).__module__.startswith("keras.")


class _Reader:
    """Walks a model and its nested models and collects nodes with unique names."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._shapes: dict[str, tuple] = {}
        self._seen: dict[int, str] = {}  # layer objects read so far, because nested models may share layers

    def read(self, model: keras.Model, outer: Mapping[str, str], path: tuple[str, ...]) -> str:
        """Appends the nodes of `model`. For a nested model, `outer` maps the names of its inputs."""
        names: dict[str, str] = dict(outer)
        previous = None
        sequential = isinstance(model, keras.Sequential)
        config = _config(model)
        entries = config["layers"]
        if sequential and entries[0]["class_name"] != "InputLayer":
            entries = [_input_entry(model), *entries]
        for entry in entries:
            name = entry.get("name") or entry["config"]["name"]
            if name in names:
                previous = name
                continue
            if sequential:
                args, kwargs = ((Ref(previous),) if previous else ()), {}
            else:
                args, kwargs = _call_arguments(entry, name)
            names[name] = self._read_entry(model, entry, name, _rename(args, names), _rename(kwargs, names), path)
            previous = name
        return names[previous] if sequential else names[_output_name(config)]

    def _read_entry(self, model, entry, name, args, kwargs, path) -> str:
        inputs = list_refs((args, kwargs))
        if any(call["kwargs"].get("training") for call in entry.get("inbound_nodes", ())):
            check_mode(model.get_layer(name), name)
        if entry["class_name"] in _MODEL_CLASSES and (entry["module"] or "").startswith("keras"):
            inner = model.get_layer(name)
            if len(inputs) != 1:
                raise UserError(f"Nested model `{name}` must have one input. Received: {len(inputs)}.")
            # `training=False` is dropped, here and for single layers: layers with new weights must be trained.
            return self.read(inner, {_input_name(inner): inputs[0]}, (*path, name))
        _check_entry(entry, name)
        node = Node(
            name=self._unique(name, path),
            module=entry["module"] or "",  # None for layers defined in the main script
            class_name=entry["class_name"],
            registered_name=entry.get("registered_name"),
            config=_trainable(entry["config"]),
            args=args,
            kwargs=kwargs,
            inputs=tuple(dict.fromkeys(inputs)),
            shape=(),
            kind=Kind.OPAQUE,
            path=(*path, name),
        )
        if node.class_name == "InputLayer":
            node = replace(node, shape=tuple(node.config["batch_shape"]), kind=Kind.INPUT)
        elif is_op(node.module):
            node = self._complete_op(node)
        else:
            node = self._complete_layer(node, model.get_layer(name))
        if None in node.shape[1:]:
            raise UserError(
                f"Layer `{node.name}` ({node.class_name}) makes tensors of unknown size {node.shape}. "
                "Expected fixed sizes except for the batch, since the cost depends on them."
            )
        self.nodes.append(node)
        self._shapes[node.name] = node.shape
        return node.name

    def _unique(self, name: str, path: tuple[str, ...]) -> str:
        """Makes the name of a layer unique: layers of nested models may have the names of other layers."""
        candidates = [name, "_".join((*path, name))]
        candidates += [f"{candidates[-1]}_{number}" for number in range(2, len(self.nodes) + 3)]
        return next(candidate for candidate in candidates if candidate not in self._shapes)

    def _complete_op(self, node: Node) -> Node:
        operation = make_layer(node)
        kind = self._kind(node)
        # A constant with several numbers may differ between channels, and `1 / x` turns zeros into infinity.
        divides = node.class_name in ("Divide", "TrueDivide") and not isinstance(node.args[0], Ref)
        if divides or _holds_array((node.args, node.kwargs)):
            kind = Kind.OPAQUE
        return replace(node, shape=self._output_shape(operation, node), kind=kind)

    def _complete_layer(self, node: Node, layer: keras.Layer) -> Node:
        if id(layer) in self._seen:
            raise UserError(
                f"Layer `{node.path[-1]}` is shared: it is used in `{'/'.join(node.path)}` and in "
                f"`{self._seen[id(layer)]}`. Expected every layer to be called once: give each call its own layer."
            )
        self._seen[id(layer)] = "/".join(node.path)
        if isinstance(layer, keras.Model):
            raise UserError(
                f"Nested model `{node.name}` is a subclassed model ({node.class_name}), whose structure can't be "
                "read. Expected a functional or Sequential model: rebuild it with `keras.Model(inputs, outputs)`."
            )
        num_params = layer.count_params()
        if node.class_name == "Normalization" and num_params:
            node, num_params = _with_statistics(node, layer, num_params)
        make_layer_known(layer)
        if node.class_name == "Lambda":
            check_lambda(node, self._shapes)
        make_layer(node)  # if the layer can't be made again, this fails now rather than after a search
        kind = declared_kind(layer, len(list_refs((node.args, node.kwargs)))) or self._kind(node)
        node = replace(node, shape=self._output_shape(layer, node), kind=kind, num_params=num_params)
        check_same_size(node, self._shapes)
        check_declared(node, layer, self._shapes)
        return node

    def _kind(self, node: Node) -> Kind:
        shapes = tuple(self._shapes[name] for name in list_refs((node.args, node.kwargs)))
        return kind_of(node.module, node.class_name, node.config, shapes, len(shapes))

    def _output_shape(self, layer: Any, node: Node) -> tuple:
        tensors = {name: keras.KerasTensor(self._shapes[name]) for name in node.inputs}
        try:
            spec = call_layer(layer.compute_output_spec, node, tensors)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"Layer `{node.name}` ({node.class_name}) can't be called with its inputs: {first_line(error)}"
            ) from error
        if not isinstance(spec, keras.KerasTensor):
            raise UserError(f"Layer `{node.name}` ({node.class_name}) has several outputs. Expected one.")
        return tuple(spec.shape)


def _config(model: keras.Model) -> dict[str, Any]:
    try:
        return model.get_config()
    except NotImplementedError as error:
        named = next(filter(_lacks_config, model.layers), model)
        raise UserError(
            f"Layer `{named.name}` ({type(named).__name__}) has no config: {first_line(error)} "
            "Give its class a `get_config` method."
        ) from error


def _lacks_config(layer: Any) -> bool:
    try:
        layer.get_config()
    except NotImplementedError:
        return True
    return False


def _input_entry(model: keras.Sequential) -> dict:
    config = {"batch_shape": tuple(model.inputs[0].shape), "dtype": model.inputs[0].dtype, "name": "images"}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def _input_name(model: keras.Model) -> str:
    first = model.get_config()["layers"][0]
    return first["config"]["name"] if first["class_name"] == "InputLayer" else "images"


def _output_name(config: Mapping[str, Any]) -> str:
    outputs = config["output_layers"]
    while not isinstance(outputs, str):  # ["name", 0, 0], possibly inside a list or a dictionary
        outputs = next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs[0]
    return outputs


def _check_entry(entry: Mapping[str, Any], name: str) -> None:
    if entry["class_name"] == "Lambda" and not lambdas_are_accepted():
        raise UserError(
            f"Layer `{name}` is a Lambda, whose code can't be read or saved safely. "
            "Replace it with a Keras layer or a registered layer class of your own, or accept its code: `unsafe_load`."
        )
    if entry["class_name"] in _SEQUENCE_CLASSES:
        raise UserError(f"Layer `{name}` ({entry['class_name']}) is not supported: expected an image classifier.")
    if entry["config"].get("data_format") == "channels_first":
        raise UserError(
            f"Layer `{name}` ({entry['class_name']}) is channels_first. "
            'Expected channels last throughout: rebuild the model with `data_format="channels_last"`.'
        )


def _call_arguments(entry: Mapping[str, Any], name: str) -> tuple[tuple, dict]:
    calls = entry["inbound_nodes"]
    if len(calls) > 1:
        raise UserError(
            f"Layer `{name}` is shared: it is called {len(calls)} times. "
            "Expected every layer to be called once: give each call its own layer."
        )
    if not calls:
        return (), {}
    kwargs = {
        key: value
        for key, value in calls[0]["kwargs"].items()
        if not (key == "mask" and value is None) and key != "training"
    }
    return _with_refs(tuple(calls[0]["args"]), name), _with_refs(kwargs, name)


def _with_refs(value: Any, layer: str) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            source, _, index = value["config"]["keras_history"]
            if index:
                raise UserError(f"Layer `{layer}` reads output {index} of `{source}`. Expected layers with one output.")
            return Ref(source)
        if "class_name" in value and "config" in value:  # arrays, slices
            return keras.saving.deserialize_keras_object(value)
        return {key: _with_refs(item, layer) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_refs(item, layer) for item in value)
    return value


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    return map_refs(value, lambda ref: Ref(names[ref.name]))


def _holds_array(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_holds_array, value))
    return bool(getattr(value, "shape", ()))


def _trainable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    # Layers that were frozen while a head was trained get new weights in a student, so they must be trainable.
    return {**config, "trainable": True} if "trainable" in config else config


def _with_statistics(node: Node, layer: keras.layers.Normalization, num_params: int) -> tuple[Node, int]:
    """Moves the statistics that the layer was adapted to into its config: they are fixed, not trained."""
    mean, variance = (keras.ops.convert_to_numpy(weight) for weight in layer.weights[:2])
    if np.all(mean == 0) and np.all(variance == 1):
        return node, num_params
    return replace(node, config={**node.config, "mean": mean.tolist(), "variance": variance.tolist()}), 0


def _only_needed(nodes: list[Node], output: str) -> tuple[Node, ...]:
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return tuple(_topological([node for node in nodes if node.name in needed]))


def _topological(nodes: list[Node]) -> list[Node]:
    # A functional config lists layers by depth. This order is topological except around nested models.
    done: set[str] = set()
    ordered: list[Node] = []
    waiting = list(nodes)
    while waiting:
        ready = next(node for node in waiting if all(name in done for name in node.inputs))
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered
