"""Networks with several inputs or outputs, seen as networks with one flat input and one flat output.

Whatever works on a graph (search space, cost, supernet, training) then knows a single tensor at either end. The tensors
behind it are packed side by side: `[batch, numbers]`. Only what is handed to users has the original inputs and outputs.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.ends import End, Packing
from tas_tf.graph.kinds import Kind, kind_of
from tas_tf.graph.nodes import Node, Ref


def names_of(model: keras.Model, what: str) -> tuple[str, ...]:
    """Names of a model's inputs or outputs: keys, if it has a dictionary of them, or names of layers.

    Args:
        model: Functional or Sequential model.
        what: `inputs` or `outputs`.

    Raises:
        UserError: Lists or dictionaries are nested.
    """
    structure = structure_of(model, what)
    parts = list(structure.values()) if isinstance(structure, Mapping) else structure
    if isinstance(parts, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in parts):
        raise UserError(f"`model` must have its {what} in one list or dictionary. Received nested ones.")
    if isinstance(structure, Mapping):
        return tuple(path[-1] for path, _ in keras.tree.flatten_with_path(structure))  # sorted, if Keras does
    names: list[str] = []
    for tensor in getattr(model, what):
        own = tensor._keras_history.operation.name  # Keras has no public way
        numbered = (f"{own}_{number}" for number in itertools.count(1))
        names.append(own if own not in names else next(name for name in numbered if name not in names))
    return tuple(names)


def structure_of(model: keras.Model, what: str) -> Any:
    """A model's inputs or outputs as it has them: a tensor, or several in a list or dictionary."""
    tensors = getattr(model, what)
    if isinstance(model, keras.Sequential):
        return tensors[0]
    structure = model.input if what == "inputs" else model.output
    return structure if isinstance(structure, Mapping) or len(tensors) > 1 else tensors[0]


def pack(
    model: keras.Model, nodes: tuple[Node, ...], inputs: Sequence[Node], ends: Sequence[End]
) -> tuple[tuple[Node, ...], End, Packing]:
    """Packs several inputs or outputs of a network into one.

    Args:
        model: The network.
        nodes: Its nodes.
        inputs: Its inputs, in order.
        ends: Its outputs, in order.

    Returns:
        The nodes of the network with one input and one output, that output, and what was packed.
    """
    by_name, end, added = {node.name: node for node in nodes}, ends[0], []
    for node in inputs:  # those that nothing reads have a name all the same
        by_name.setdefault(node.name, node)
    if len(inputs) > 1:
        unpacking = _packed_inputs(inputs, by_name)
        nodes = (*unpacking, *(node for node in nodes if node.kind is not Kind.INPUT))
        added += unpacking
    if len(ends) > 1:
        packing = _packed_outputs(ends, by_name)
        nodes, end = (*nodes, *packing), End(packing[-1].name, packing[-1].name)
        added += packing
    nodes_in_order, ends_in_order = iter(inputs), iter(ends)
    found = Packing(
        input_names=names_of(model, "inputs"),
        inputs=tuple(inputs),
        input_structure=keras.tree.map_structure(lambda _: next(nodes_in_order).name, structure_of(model, "inputs")),
        ends=tuple(ends),
        output_structure=keras.tree.map_structure(lambda _: next(ends_in_order).name, structure_of(model, "outputs")),
        added=frozenset(node.name for node in added),
    )
    return nodes, end, found


def _packed_inputs(inputs: Sequence[Node], taken: Mapping[str, Node]) -> list[Node]:
    """Nodes of a flat input and of what takes it apart; the last ones have the names of the inputs.

    Args:
        inputs: The original inputs.
        taken: Nodes whose names can't be used for others.
    """
    sizes = [math.prod(node.shape[1:]) for node in inputs]
    flat = _layer(keras.layers.InputLayer, {"batch_shape": (None, sum(sizes))}, _free("inputs", taken))
    flat = replace(flat, shape=(None, sum(sizes)), kind=Kind.INPUT)
    nodes, start = [flat], 0
    for node, size in zip(inputs, sizes, strict=True):
        part = _free(f"{node.name}_part", taken)
        index = (slice(None), slice(start, start + size))
        nodes.append(
            Node(
                part,
                module="keras.src.ops.numpy",
                class_name="GetItem",
                registered_name="GetItem",
                config={"name": part},
                args=(Ref(flat.name), index),
                kwargs={},
                inputs=(flat.name,),
                shape=(None, size),
                kind=Kind.OPAQUE,
            )
        )
        shape = tuple(node.shape[1:])
        nodes.append(_layer(keras.layers.Reshape, {"target_shape": shape}, node.name, nodes[-1]))
        start += size
    return nodes


def _packed_outputs(ends: Sequence[End], by_name: Mapping[str, Node]) -> list[Node]:
    """Nodes that flatten the logits of all outputs and put them side by side.

    Args:
        ends: The outputs.
        by_name: All nodes.
    """
    flat, added = [], []
    for end in ends:
        node = by_name[end.output]
        if len(node.shape) > 2:
            node = _layer(keras.layers.Flatten, {}, _free(re.sub(r"\W", "_", f"{end.name}_flat"), by_name), node)
            added.append(node)
        flat.append(node)
    joined = _layer(keras.layers.Concatenate, {"axis": -1}, _free("outputs", by_name), *flat)
    return [*added, joined]


def _layer(layer: type[keras.Layer], options: Mapping[str, Any], name: str, *read: Node) -> Node:
    """A node of a float32 layer without weights."""
    made = layer(**options, name=name, dtype="float32")
    refs = [Ref(node.name) for node in read]
    shapes = tuple(node.shape for node in read)
    shape, kind = (), Kind.OPAQUE
    if read:
        (shape,) = {tuple(made.compute_output_shape(shapes[0] if layer is not keras.layers.Concatenate else shapes))}
        kind = kind_of("keras.layers", layer.__name__, made.get_config(), shapes)
    return Node(
        name,
        module="keras.layers",
        class_name=layer.__name__,
        registered_name=None,
        config=made.get_config(),
        args=(refs if layer is keras.layers.Concatenate else refs[0],) if refs else (),
        kwargs={},
        inputs=tuple(dict.fromkeys(node.name for node in read)),
        shape=shape,
        kind=kind,
    )


def _free(name: str, taken: Mapping[str, Node]) -> str:
    while name in taken:
        name += "_"
    return name
