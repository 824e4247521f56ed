"""Reads a Keras model's public config into a `Graph`: inlining, shapes, checks, the softmax split off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph import Graph, Node, Ref
from tas_tf.kinds import Kind, activation_name, is_op, kind_of

_MODEL_CLASSES = ("Functional", "Sequential", "Model")


def read_model(model: Any) -> Graph:
    """Reads a functional or Sequential Keras 3 classifier.

    Raises:
        UserError: It can't be described; the message names the layer and says what to do.
    """
    _check_model(model)
    reader = _Reader()
    output = reader.read(model, {}, ())
    nodes = _only_needed(reader.nodes, output)
    return _split_softmax(model.name, nodes, output)


def original_layer(model: keras.Model, node: Node) -> keras.Layer:
    """The layer of `model` that `node` was read from; nested models are walked down."""
    layer = model
    for name in node.path:
        layer = layer.get_layer(name)
    return layer


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
            f"`model` is a subclassed model ({type(model).__name__}), whose structure can't be read. "
            "Expected a functional or Sequential model: rebuild it with `keras.Model(inputs, outputs)`."
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
    # Subclasses of `keras.Model` built by the functional API come out as these very classes.
    return type(model).__name__ in _MODEL_CLASSES and type(model).__module__.startswith("keras.")


class _Reader:
    """Walks models, outermost first, and collects nodes with names unique across nesting."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.taken: set[str] = set()

    def read(self, model: keras.Model, outer: Mapping[str, str], path: tuple[str, ...]) -> str:
        """Appends the nodes of `model`; `outer` maps the names of its inputs when it is nested."""
        names: dict[str, str] = dict(outer)
        previous = None
        sequential = isinstance(model, keras.Sequential)
        entries = model.get_config()["layers"]
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
            names[name] = self._read_entry(
                model, entry, name, _rename(args, names), _rename(kwargs, names), path
            )
            previous = name
        return names[previous] if sequential else names[_output_name(model)]

    def _read_entry(self, model, entry, name, args, kwargs, path) -> str:
        inputs = tuple(_refs((args, kwargs)))
        if entry["class_name"] in _MODEL_CLASSES and entry["module"].startswith("keras"):
            inner = model.get_layer(name)
            if len(inputs) != 1:
                raise UserError(f"Nested model `{name}` must have one input. Received: {len(inputs)}.")
            inner_input = _input_name(inner)
            return self.read(inner, {inner_input: inputs[0]}, (*path, name))
        _check_entry(entry, name)
        unique = name if name not in self.taken else "_".join((*path, name))
        self.taken.add(unique)
        node = Node(
            name=unique,
            module=entry["module"],
            class_name=entry["class_name"],
            registered_name=entry.get("registered_name"),
            config=entry["config"],
            args=args,
            kwargs=kwargs,
            inputs=tuple(dict.fromkeys(inputs)),
            shape=(),
            kind=Kind.OPAQUE,
            path=(*path, name),
        )
        self.nodes.append(self._with_shape(model, node, inputs))
        return unique

    def _with_shape(self, model: keras.Model, node: Node, inputs: tuple[str, ...]) -> Node:
        by_name = {other.name: other for other in self.nodes}
        input_shapes = tuple(by_name[name].shape for name in inputs)
        if node.class_name == "InputLayer":
            return replace(node, shape=tuple(node.config["batch_shape"]), kind=Kind.INPUT)
        remade = deserialize(node)  # fails here, not after a search, when its class isn't registered
        layer = remade if is_op(node.module) else model.get_layer(node.path[-1])
        shape = _output_shape(layer, node, {name: by_name[name].shape for name in inputs})
        kind = kind_of(node.module, node.class_name, node.config, input_shapes, len(inputs))
        if is_op(node.module) and not _constants_are_scalars((node.args, node.kwargs)):
            kind = Kind.OPAQUE
        num_params = 0 if is_op(node.module) else layer.count_params()
        return replace(node, shape=shape, kind=kind, num_params=num_params)


def _input_entry(model: keras.Sequential) -> dict:
    config = {"batch_shape": tuple(model.inputs[0].shape), "dtype": model.inputs[0].dtype, "name": "images"}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def _input_name(model: keras.Model) -> str:
    first = model.get_config()["layers"][0]
    return first["config"]["name"] if first["class_name"] == "InputLayer" else "images"


def _output_name(model: keras.Model) -> str:
    outputs = model.get_config()["output_layers"]
    while isinstance(outputs[0], (list, tuple)):
        outputs = outputs[0]
    return outputs[0]


def _check_entry(entry: Mapping[str, Any], name: str) -> None:
    if entry["class_name"] == "Lambda":
        raise UserError(
            f"Layer `{name}` is a Lambda, whose code can't be read or saved safely. "
            "Replace it by a Keras layer, or by a registered layer class of your own."
        )
    if entry["class_name"] in ("TimeDistributed", "Bidirectional", "RNN", "LSTM", "GRU"):
        raise UserError(
            f"Layer `{name}` ({entry['class_name']}) is not supported: expected an image classifier."
        )


def _call_arguments(entry: Mapping[str, Any], name: str) -> tuple[tuple, dict]:
    calls = entry["inbound_nodes"]
    if len(calls) > 1:
        raise UserError(
            f"Layer `{name}` is shared: it is called {len(calls)} times. "
            "Expected every layer to be called once: give each call a layer of its own."
        )
    if not calls:
        return (), {}
    kwargs = {
        key: value for key, value in calls[0]["kwargs"].items() if not (key == "mask" and value is None)
    }
    return _with_refs(tuple(calls[0]["args"]), name), _with_refs(kwargs, name)


def _with_refs(value: Any, layer: str) -> Any:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            source, _, index = value["config"]["keras_history"]
            if index:
                raise UserError(
                    f"Layer `{layer}` reads output {index} of `{source}`. Expected layers of one output."
                )
            return Ref(source)
        return {key: _with_refs(item, layer) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_refs(item, layer) for item in value)
    return value


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Ref):
        return Ref(names[value.name])
    if isinstance(value, dict):
        return {key: _rename(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_rename(item, names) for item in value)
    return value


def _refs(value: Any) -> list[str]:
    if isinstance(value, Ref):
        return [value.name]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [name for item in value for name in _refs(item)]
    return []


def _constants_are_scalars(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_name" not in value and all(map(_constants_are_scalars, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_constants_are_scalars, value))
    return True


def deserialize(node: Node, config: Mapping[str, Any] | None = None) -> Any:
    """Makes the layer or operation that a node describes, with another config if one is given."""
    entry = {
        "module": node.module,
        "class_name": node.class_name,
        "config": dict(node.config if config is None else config),
        "registered_name": node.registered_name,
    }
    try:
        return keras.saving.deserialize_keras_object(entry)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(
            f"Layer `{node.name}` ({node.class_name}) can't be made again from its config: "
            f"{str(error).strip().splitlines()[0]} Register its class with "
            "`keras.saving.register_keras_serializable` and import it before."
        ) from error


def call(layer: Any, node: Node, tensors: Mapping[str, Any]) -> Any:
    """Calls `layer` as `node` was called, on `tensors` by node name."""

    def fill(value: Any) -> Any:
        if isinstance(value, Ref):
            return tensors[value.name]
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(fill(item) for item in value)
        return value

    return layer(*fill(node.args), **fill(dict(node.kwargs)))


def _output_shape(layer: Any, node: Node, input_shapes: Mapping[str, tuple]) -> tuple:
    tensors = {name: keras.KerasTensor(shape) for name, shape in input_shapes.items()}
    spec = call(layer.compute_output_spec, node, tensors)
    if not isinstance(spec, keras.KerasTensor):
        raise UserError(f"Layer `{node.name}` ({node.class_name}) has several outputs. Expected one.")
    return tuple(spec.shape)


def _only_needed(nodes: list[Node], output: str) -> tuple[Node, ...]:
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return tuple(_topological([node for node in nodes if node.name in needed]))


def _topological(nodes: list[Node]) -> list[Node]:
    # A functional config lists layers by depth, which is topological but for nested models' order.
    done: set[str] = set()
    ordered: list[Node] = []
    waiting = list(nodes)
    while waiting:
        ready = next(node for node in waiting if all(name in done for name in node.inputs))
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered


def _split_softmax(network: str, nodes: tuple[Node, ...], output: str) -> Graph:
    by_name = {node.name: node for node in nodes}
    last = by_name[output]
    if len(last.shape) != 2:
        raise UserError(
            f"`model` must end in one vector of class scores an image, [batch, classes]. Received: {last.shape} "
            f"from layer `{output}`. Put a pooling layer or `Flatten` and a `Dense` layer behind it."
        )
    is_softmax = last.class_name == "Softmax" or (
        last.class_name == "Activation" and activation_name(last.config["activation"]) == "softmax"
    )
    head = None
    if is_softmax:
        head = last
        nodes = tuple(node for node in nodes if node.name != output)
        output = last.inputs[0]
        last = by_name[output]
    elif last.activation == "softmax":
        head = last
        last = replace(last, config={**last.config, "activation": "linear"})
        nodes = tuple(last if node.name == output else node for node in nodes)
    elif last.activation != "linear" or last.class_name == "Activation":
        name = last.activation
        raise UserError(
            f"`model` ends in the activation `{name}` (layer `{output}`). Expected class scores: logits or a softmax. "
            "Multi-label and regression models are not supported."
        )
    if last.channels < 2:
        raise UserError(
            f"`model` must tell at least 2 classes apart. Received: {last.channels} output (`{output}`)."
        )
    return Graph(network, nodes, output, head)
