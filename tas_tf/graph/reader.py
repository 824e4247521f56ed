"""Reads the calls of a Keras model into nodes: inlines nested models, infers shapes, rejects unsupported layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from tas_tf.errors import UserError
from tas_tf.graph.calls import Call, is_graph, list_calls, tensor_key
from tas_tf.graph.composite import as_model, labels
from tas_tf.graph.custom import check_declared, check_lambda, declared_kind, lambdas_are_accepted
from tas_tf.graph.ends import End, Packing
from tas_tf.graph.head import split_head
from tas_tf.graph.kinds import Kind, is_op, kind_of
from tas_tf.graph.layers import call_layer, first_line, make_layer, make_layer_known
from tas_tf.graph.modes import check_mode, check_same_size
from tas_tf.graph.needed import only_needed
from tas_tf.graph.nodes import Node, Ref, list_refs, map_refs
from tas_tf.graph.operations import kind_of_operation
from tas_tf.graph.packing import names_of, pack, structure_of

_SEQUENCE_CLASSES = ("TimeDistributed", "Bidirectional", "RNN", "LSTM", "GRU", "ConvLSTM2D")
#: Kinds of layers with weights that may be called several times; others keep all channels then.
_SHAREABLE = frozenset({Kind.CONV, Kind.DENSE, Kind.SEPARABLE, Kind.DEPTHWISE, Kind.BATCH_NORM, Kind.LAYER_NORM})
_SHAREABLE |= {Kind.TRANSPOSED, Kind.GROUP_NORM, Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS}


class GraphParts(NamedTuple):
    """The fields of a `Graph`."""

    network: str
    nodes: tuple[Node, ...]
    end: End
    packing: Packing | None


def read_model(model: Any) -> GraphParts:
    """Reads a functional or Sequential Keras 3 model.

    Raises:
        UserError: If the model can't be described. The message names the layer and says what to do.
    """
    _check_model(model)
    reader = _Reader()
    outputs = reader.read(model)
    names = names_of(model, "outputs")
    inputs = [reader.nodes[name] for name in reader.inputs]
    nodes = only_needed(list(reader.nodes.values()), outputs)
    ends, done = [], {}
    for name, output in zip(names, outputs, strict=True):
        if output not in done:
            nodes, logits, head = split_head(model.name, nodes, output)
            done[output] = logits, head
        ends.append(End(name, *done[output]))
    in_dictionary = any(isinstance(structure_of(model, what), Mapping) for what in ("inputs", "outputs"))
    if len(inputs) == len(ends) == 1 and not in_dictionary:
        return GraphParts(model.name, nodes, ends[0], None)
    return GraphParts(model.name, *pack(model, nodes, inputs, ends))


def _check_model(model: Any) -> None:
    if type(model).__module__.startswith(("tf_keras", "tensorflow.python.keras")):
        raise UserError(
            "`model` is a tf_keras (Keras 2) model. Expected a Keras 3 model. "
            "Save it and load it with `keras.models.load_model`."
        )
    if not isinstance(model, keras.Model):
        hint = ": load it with `keras.models.load_model`" if isinstance(model, str | Path) else ""
        raise UserError(f"`model` must be a Keras model. Received: {type(model).__name__}{hint}.")
    if not is_graph(model):
        raise UserError(
            f"`model` is a subclassed model ({type(model).__name__}), whose structure can't be read. Expected a "
            "functional or Sequential model: make one with the same layers by `inputs = keras.Input(shape)` and "
            "`keras.Model(inputs, model.call(inputs))`."
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise UserError(
            f"`model` ({model.name}) has no input shape yet. "
            "Expected a built model: start it with `keras.Input(shape)`, or call it once."
        )
    if len(model.inputs) > 1 and any(None in tensor.shape[1:] for tensor in model.inputs):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in model.inputs)
        raise UserError(f"`model` must have inputs of fixed size, since it has several. Received: {shapes}.")
    if any(size is None for size in model.inputs[0].shape[1:]):
        raise UserError(
            "`model` must have an input of fixed size, since its cost depends on it. "
            f"Received: {tuple(model.inputs[0].shape)}. Give `image_size` where it can be given, or the model "
            "`keras.Model(images, model(images))` with `images = keras.Input((height, width, channels))`."
        )


class _Reader:
    """Walks a model and its nested models and collects nodes with unique names."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.inputs: list[str] = []  # the nodes of the inputs of the model that was read last
        self._shapes: dict[str, tuple] = {}
        self._first_calls: dict[int, str] = {}  # the node of the first call of each layer, by the layer's id

    def read(
        self,
        model: keras.Model,
        outer: Sequence[str] = (),
        path: tuple[str, ...] = (),
        label_of: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Appends the nodes of `model` and returns those that make its outputs.

        Args:
            model: The outer or a nested model.
            outer: For a nested model, the nodes that its inputs come from.
            path: Names of the models around it.
            label_of: For a composite layer, the labels of its layers.
        """
        found = list_calls(model)
        names: dict[str, str] = dict(zip(found.inputs, outer, strict=False))
        waiting = [call for call in found.calls if tensor_key(call.layer) not in names]
        while waiting:
            # In the config, a layer that is called several times stands where it is called first.
            call = next(call for call in waiting if all(key in names for key in list_refs((call.args, call.kwargs))))
            waiting.remove(call)
            for output, name in enumerate(self._read_call(model, _rename(call, names), path, label_of or {})):
                names[tensor_key(call.layer, call.number, output)] = name
        self.inputs = [names[key] for key in found.inputs]
        return [names[key] for key in found.outputs]

    def _read_call(
        self, model: keras.Model, call: Call, path: tuple[str, ...], label_of: Mapping[str, str]
    ) -> list[str]:
        entry, inputs = _with_data_format(call.entry), list_refs((call.args, call.kwargs))
        label = label_of.get(call.layer, call.layer)
        if call.in_training:
            check_mode(model.get_layer(call.layer), call.layer)
        is_operation = is_op(entry["module"] or "")
        layer = None if is_operation or entry["class_name"] == "InputLayer" else model.get_layer(call.layer)
        if is_graph(layer):
            # `training=False` is dropped, here and for single layers: layers with new weights must be trained.
            return self.read(layer, _inputs_of_nested(layer, call), (*path, label))
        parts = self._read_parts(layer, call, (*path, label))
        if parts is not None:
            return parts
        _check_entry(entry, call.layer)
        node = Node(
            name=self._unique(label, path) if label == call.layer else self._unique("_".join((*path, label)), ()),
            module=entry["module"] or "",  # None for layers defined in the main script
            class_name=entry["class_name"],
            registered_name=entry.get("registered_name"),
            config=_trainable(entry["config"]),
            was_frozen=not entry["config"].get("trainable", True),
            args=call.args,
            kwargs=call.kwargs,
            inputs=tuple(dict.fromkeys(inputs)),
            shape=(),
            kind=Kind.OPAQUE,
            path=(*path, label),
        )
        if node.class_name == "InputLayer":
            nodes = [replace(node, shape=tuple(node.config["batch_shape"]), kind=Kind.INPUT)]
        elif is_operation:
            nodes = self._complete_operation(node)
        else:
            nodes = self._complete_layer(node, layer)
        for one in nodes:
            if None in one.shape[1:]:
                raise UserError(
                    f"Layer `{one.name}` ({one.class_name}) makes tensors of unknown size {one.shape}. "
                    "Expected fixed sizes except for the batch, since the cost depends on them."
                )
            self.nodes[one.name] = one
            self._shapes[one.name] = one.shape
        return [one.name for one in nodes]

    def _read_parts(self, layer: Any, call: Call, path: tuple[str, ...]) -> list[str] | None:
        """Reads a layer that consists of other layers, if it is called with tensors alone and all can be read."""
        if not all(isinstance(one, Ref) for one in call.args) or call.kwargs:
            return None
        inputs = [one.name for one in call.args]
        inner = as_model(layer, [self._shapes[name] for name in inputs])
        if inner is None:
            return None
        before = dict(self.nodes), dict(self._shapes), dict(self._first_calls)
        try:
            return self.read(inner, inputs, path, labels(layer))
        except UserError:  # the layer as a whole may still be accepted
            self.nodes, self._shapes, self._first_calls = before
            return None

    def _unique(self, name: str, path: tuple[str, ...]) -> str:
        """Makes the name of a layer unique: layers of nested models may have the names of other layers."""
        candidates = [name, "_".join((*path, name))]
        candidates += [f"{candidates[-1]}_{number}" for number in range(2, len(self.nodes) + 3)]
        return next(candidate for candidate in candidates if candidate not in self._shapes)

    def _complete_operation(self, node: Node) -> list[Node]:
        operation = make_layer(node)
        return self._outputs(replace(node, kind=self._kind(node)), operation)

    def _complete_layer(self, node: Node, layer: keras.Layer) -> list[Node]:
        if isinstance(layer, keras.Model):
            raise UserError(
                f"Nested model `{node.name}` is a subclassed model ({node.class_name}), whose structure can't be "
                "read. Expected a functional or Sequential model: call `inner.call(x)` instead of `inner(x)` where it "
                "is used, which takes over its layers one by one."
            )
        num_params = layer.count_params()
        if node.class_name == "GroupNormalization":
            node = _with_single_groups(node, self._shapes[node.inputs[0]])
        if node.class_name == "Normalization" and num_params:
            node, num_params = _with_statistics(node, layer, num_params)
        make_layer_known(layer)
        if node.class_name == "Lambda":
            check_lambda(node, self._shapes)
        make_layer(node)  # if the layer can't be made again, this fails now rather than after a search
        kind = declared_kind(layer, len(list_refs((node.args, node.kwargs)))) or self._kind(node)
        node = replace(node, kind=kind, num_params=num_params)
        nodes = self._outputs(self._shared(node, layer) if num_params else node, layer)
        check_same_size(nodes[0], self._shapes)
        check_declared(nodes[0], layer, self._shapes)
        return nodes

    def _shared(self, node: Node, layer: keras.Layer) -> Node:
        """Marks a further call of a layer, whose weights belong to its first call."""
        first = self.nodes.get(self._first_calls.setdefault(id(layer), node.name))
        if first is None:
            return node
        if node.kind not in _SHAREABLE or first.kind not in _SHAREABLE:
            self.nodes[first.name], node = replace(first, kind=Kind.OPAQUE), replace(node, kind=Kind.OPAQUE)
        return replace(node, num_params=0, shares=first.name)

    def _kind(self, node: Node) -> Kind:
        shapes = tuple(self._shapes[name] for name in list_refs((node.args, node.kwargs)))
        if is_op(node.module):
            return kind_of_operation(node, shapes)
        return kind_of(node.module, node.class_name, node.config, shapes)

    def _outputs(self, node: Node, layer: Any) -> list[Node]:
        """Returns a node for each output of a call."""
        tensors = {name: keras.KerasTensor(self._shapes[name]) for name in node.inputs}
        try:
            spec = call_layer(layer.compute_output_spec, node, tensors)
        except (TypeError, ValueError, NotImplementedError) as error:  # the last: a class without a rule for shapes
            raise UserError(
                f"Layer `{node.name}` ({node.class_name}) can't be called with its inputs: {first_line(error)}"
            ) from error
        if isinstance(spec, keras.KerasTensor):
            return [replace(node, shape=tuple(spec.shape))]
        shapes = [tuple(one.shape) for one in keras.tree.flatten(spec)]
        first = replace(node, shape=shapes[0], output=0)
        # Weights belong to the first output.
        others = [
            replace(node, name=f"{node.name}_{output}", shape=shape, output=output, num_params=0, sibling=node.name)
            for output, shape in enumerate(shapes[1:], 1)
        ]
        return [first, *(replace(one, name=self._unique(one.name, ())) for one in others)]


def _check_entry(entry: Mapping[str, Any], name: str) -> None:
    if entry["class_name"] == "Lambda" and not lambdas_are_accepted():
        raise UserError(
            f"Layer `{name}` is a Lambda, whose code can't be read or saved safely. "
            "Replace it with a Keras layer or a registered layer class of your own, or accept its code: `unsafe_load`."
        )
    if entry["class_name"] in _SEQUENCE_CLASSES:
        raise UserError(f"Layer `{name}` ({entry['class_name']}) is not supported: expected layers without a state.")
    if entry["config"].get("data_format") == "channels_first":
        raise UserError(
            f"Layer `{name}` ({entry['class_name']}) is channels_first. "
            'Expected channels last throughout: rebuild the model with `data_format="channels_last"`.'
        )


def _with_data_format(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fills in the data format that operations on images take from Keras's settings if none is given."""
    if entry["config"].get("data_format", "") is not None:
        return entry
    return {**entry, "config": {**entry["config"], "data_format": keras.config.image_data_format()}}


def _rename(call: Call, names: Mapping[str, str]) -> Call:
    args, kwargs = map_refs((call.args, dict(call.kwargs)), lambda ref: Ref(names[ref.name]))
    return replace(call, args=args, kwargs=kwargs)


def _trainable(config: Mapping[str, Any]) -> Mapping[str, Any]:
    # Layers that were frozen while a head was trained get new weights in a student, so they must be trainable.
    return {**config, "trainable": True} if "trainable" in config else config


def _with_single_groups(node: Node, shape: tuple[int | None, ...]) -> Node:
    """Writes groups of single channels as Keras takes them, -1; a built layer's config has the number of channels."""
    return replace(node, config={**node.config, "groups": -1}) if node.config["groups"] == shape[-1] else node


def _with_statistics(node: Node, layer: keras.layers.Normalization, num_params: int) -> tuple[Node, int]:
    """Moves the statistics that the layer was adapted to into its config: they are fixed, not trained."""
    mean, variance = (keras.ops.convert_to_numpy(weight) for weight in layer.weights[:2])
    if np.all(mean == 0) and np.all(variance == 1):
        return node, num_params
    return replace(node, config={**node.config, "mean": mean.tolist(), "variance": variance.tolist()}), 0


def _inputs_of_nested(model: keras.Model, call: Call) -> list[str]:
    """The nodes that a nested model is called with, in the order of its inputs."""
    given = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    if isinstance(given, Mapping):
        names = names_of(model, "inputs")
        found = [given[name].name for name in names if name in given]
    else:
        found = list_refs((call.args, call.kwargs))
    if len(found) != len(model.inputs):
        raise UserError(f"Nested model `{call.layer}` has {len(model.inputs)} inputs. Received: {len(found)}.")
    return found
