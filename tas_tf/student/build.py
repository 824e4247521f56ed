"""Builds the pruned network of a shape from standard layers, and copies weights into it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from tas_tf.errors import UserError
from tas_tf.graph.caller import Caller
from tas_tf.graph.ends import Packing
from tas_tf.graph.graph import Graph, Node
from tas_tf.graph.kinds import MAKES_CHANNELS, Kind, is_op
from tas_tf.graph.layer_library import KERAS, LayerLibrary
from tas_tf.graph.layers import call_layer, original_layer
from tas_tf.space.channels import differing_pairs
from tas_tf.space.shape import ActiveChannels, Shape, dropped_nodes
from tas_tf.space.space import SearchSpace
from tas_tf.student.selection import narrowed_selection

#: Where a student's initial weights may come from: nowhere (fresh weights), the trained network, the race or the
#: supernet of the search that found its shape.
INITIAL_WEIGHTS = ("none", "teacher", "race", "supernet")


def build_student(
    space: SearchSpace, shape: Shape, *, logits: bool = False, library: LayerLibrary = KERAS
) -> keras.Model:
    """Builds the network that a shape describes.

    Args:
        space: Search space of the unpruned network.
        shape: Filters and blocks to keep.
        logits: Leaves out the final softmax, if the network has one, and packs several inputs or outputs into one, see
            `tas_tf.graph.packing`.
        library: Library that the layers come from.

    Returns:
        A functional model of standard layers with new weights. Layers keep their names; a projection is named after
        its Add. With `logits`, all layers can be trained; without, batch normalisation that was frozen by itself is
        frozen again.

    Raises:
        UserError: If the shape belongs to another network, or the library lacks a layer.

    Example:
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet8", image_size=8))
        >>> student = tas_tf.build_student(space, tas_tf.Shape.smallest(space))
        >>> student.get_layer("stem").filters
        4
    """
    shape.check(space)
    active = ActiveChannels(space, shape)
    dropped, rewired = dropped_nodes(space, shape)
    graph = space.graph.without(dropped, rewired)
    packing = None if logits else graph.packing
    heads = {} if logits else {end.head.name: end.head for end in graph.ends if end.head is not None}
    places = _projection_places(space)
    tensors: dict[str, Any] = {}
    caller = Caller()
    for node in graph if packing is None else _unpacked(graph, packing):
        if node.kind is Kind.INPUT:
            tensors[node.name] = library.package.Input(
                batch_shape=node.shape, dtype=node.config["dtype"], name=node.name
            )
            continue
        inputs = dict(tensors)
        for identity in space.identities.get(node.name, ()):
            sides = differing_pairs(space.read_segments(identity), space.segments[node.name])
            differ = any(active.width(one) != active.width(other) for one, other in sides)
            if differ and (node.name, identity) in places:
                width = len(active.made(node.name))
                layer = _projection(space, node, width, library, name=places[node.name, identity])
                read = rewired.get(identity, identity)
                inputs[read] = layer(inputs[read])
        adapted = narrowed_selection(node, space, active)
        described = heads.get(node.name, adapted)
        config = _narrowed(described, len(active.made(node.name)))
        if not logits and graph.stays_frozen(node):
            config["trainable"] = False
        make = partial(library.layer, adapted, config)
        tensors[node.name] = caller.call(adapted, make, inputs)
    for head in heads.values():
        if head.name not in tensors:
            config = dict(head.config) if is_op(head.module) else {**head.config, "name": head.name}
            tensors[head.name] = call_layer(library.layer(head, config), head, tensors)
    if packing is None:
        inputs, outputs = tensors[graph.input.name], tensors[graph.end.output if logits else graph.end.last]
    else:
        last = {end.name: tensors[end.last] for end in packing.ends}
        inputs = library.package.tree.map_structure(tensors.__getitem__, packing.input_structure)
        outputs = library.package.tree.map_structure(last.__getitem__, packing.output_structure)
    return library.package.Model(inputs, outputs, name=graph.network)


def _unpacked(graph: Graph, packing: Packing) -> Iterator[Node]:
    """The nodes of a network with its original inputs and outputs."""
    if len(packing.inputs) > 1:
        yield from packing.inputs
    yield from (node for node in graph if node.name not in packing.added)


def _projection_places(space: SearchSpace) -> dict[tuple[str, str], str]:
    """Names of all possible projections, by Add and identity."""
    names: dict[tuple[str, str], str] = {}
    for add, identity, *_ in space.projections():
        number = 1 + sum(add == other for other, _ in names)
        names[add, identity] = f"{add}_projection" if number == 1 else f"{add}_projection_{number}"
    return names


def _projection(space: SearchSpace, add: Node, width: int, library: LayerLibrary, *, name: str) -> keras.Layer:
    """Makes a projection: a 1x1 convolution, or a Dense layer for vectors."""
    # Functional operations have no dtype, so take it from another layer.
    typed = next(node for node in (add, *space.graph) if node.kind is not Kind.INPUT and "dtype" in node.config)
    options = {
        "use_bias": False,
        "kernel_initializer": "he_normal",
        "dtype": typed.config["dtype"],
        "name": name,
    }
    rank = len(add.shape) - 2
    if rank == 0:
        return library.new("Dense", {"units": width, **options})
    return library.new(f"Conv{rank}D", {"filters": width, "kernel_size": 1, **options})


def _narrowed(node: Node, width: int) -> dict[str, Any]:
    """The node's config with another number of channels."""
    config = dict(node.config)
    if not is_op(node.module):
        config["name"] = node.name  # unique, unlike the names of inlined nested models' layers
    if node.kind in (Kind.CONV, Kind.TRANSPOSED, Kind.SEPARABLE):
        config["filters"] = width
    elif node.kind is Kind.DENSE:
        config["units"] = width
    elif node.kind is Kind.DEPTHWISE and "groups" in config and "filters" in config:
        config["filters"], config["groups"] = width, width * config["groups"] // config["filters"]
    elif node.kind is Kind.GROUP_NORM:
        config["groups"] = width * config["groups"] // node.channels
    elif node.class_name == "LayerScale" and "projection_dim" in config:
        config["projection_dim"] = width
    elif node.kind is Kind.RESHAPE:
        key = "target_shape" if "target_shape" in config else "newshape"
        if config[key][-1] == node.channels:
            config[key] = (*config[key][:-1], width)
    return config


def copy_weights(source: keras.Model, target: keras.Model) -> keras.Model:
    """Copies all weights between two networks of one shape, of which one may have its inputs and outputs packed.

    Args:
        source: Network made by `build_student`.
        target: Another one for the same shape, which is changed and returned.
    """
    for layer in target.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
    return target


def inherit_weights(student: keras.Model, teacher: keras.Model, space: SearchSpace, shape: Shape) -> None:
    """Copies the weights that a shape keeps from the unpruned network to a student: the first filters of each unit.

    A projection copies the channels that identity and branch share and sets the others to zero, as a residual Add of
    masked channels does.

    Args:
        student: Network built for `shape`.
        teacher: The unpruned network.
        space: Search space of the teacher.
        shape: Shape of the student.

    Raises:
        UserError: If the shape is wider than the network.

    Example:
        >>> import tas_tf
        >>> teacher = tas_tf.load_network("resnet8", image_size=8)
        >>> space = tas_tf.SearchSpace.from_model(teacher)
        >>> shape = tas_tf.Shape.smallest(space)
        >>> student = tas_tf.build_student(space, shape)
        >>> tas_tf.inherit_weights(student, teacher, space, shape)
        >>> kept, all_of_them = (network.get_layer("stem").kernel.numpy() for network in (student, teacher))
        >>> bool((kept == all_of_them[..., :4]).all())
        True
    """
    assign_slices(student, space, shape, lambda node: named_weights(original_layer(teacher, node)))


def check_inheritable(space: SearchSpace, shape: Shape) -> None:
    """Checks that no width of a shape exceeds the unpruned network, as it does in some published shapes.

    Raises:
        UserError: If a width does.
    """
    for unit in space.units:
        if shape.widths[unit.name] > unit.width:
            raise UserError(
                f"`inherit`: the shape is wider than {space.graph.network}, whose weights it would inherit. Expected "
                f"at most {unit.width} filters in {unit.name}. Received: {shape.widths[unit.name]}. Use `inherit`=none."
            )


def weights_by_name(layer: keras.Layer) -> dict[str, keras.Variable]:
    """A layer's variables by name. Repeated names, which come from inner layers, are numbered: `kernel`, `kernel_2`.

    Keras numbers unnamed variables across the whole process. Here they are numbered within the layer.
    """
    found: dict[str, keras.Variable] = {}
    numbers: Counter[str] = Counter()
    for weight in layer.weights:
        name = re.sub(r"^variable(_\d+)?$", "variable", weight.name)
        numbers[name] += 1
        found[name if numbers[name] == 1 else f"{name}_{numbers[name]}"] = weight
    return found


def named_weights(layer: keras.Layer) -> dict[str, np.ndarray]:
    """A layer's weights as arrays by name, see `weights_by_name`."""
    return {name: keras.ops.convert_to_numpy(weight) for name, weight in weights_by_name(layer).items()}


def assign_slices(
    student: keras.Model,
    space: SearchSpace,
    shape: Shape,
    weights_of: Callable[[Node], Mapping[str, np.ndarray]],
) -> None:
    """Fills a student from full-size weights.

    Args:
        student: Network built for `shape`.
        space: Search space of the unpruned network.
        shape: Shape of the student.
        weights_of: Returns the full-size weights of a node by name.

    Raises:
        UserError: If the shape is wider than the unpruned network.
    """
    check_inheritable(space, shape)
    dropped, _ = dropped_nodes(space, shape)
    active = ActiveChannels(space, shape)
    for node in space.graph:
        if node.name in dropped or is_op(node.module) or not node.num_params:
            continue
        full = weights_of(node)
        for name, weight in weights_by_name(student.get_layer(node.name)).items():
            weight.assign(slice_weight(full[name], name, node, active))
    _fill_projections(student, space, active)


def _fill_projections(student: keras.Model, space: SearchSpace, active: ActiveChannels) -> None:
    """Makes each projection of a student copy the channels that its two sides share."""
    names = {layer.name for layer in student.layers}
    for (add, identity), name in _projection_places(space).items():
        if name in names:
            kept, wanted = active.read(identity), active.made(add)
            kernel = student.get_layer(name).kernel
            kernel.assign((kept[:, None] == wanted[None, :]).astype("float32").reshape(kernel.shape))


def slice_weight(value: np.ndarray, name: str, node: Node, active: ActiveChannels) -> np.ndarray:
    """Slices one weight to the channels that a shape keeps.

    Args:
        value: Weight of the unpruned layer.
        name: Name of the weight in the layer, such as `kernel`.
        node: Node of the layer.
        active: Channels that the shape keeps.
    """
    if node.kind is Kind.OPAQUE:
        return value
    made = active.made(node.name)
    if node.kind is Kind.TRANSPOSED and name.endswith("kernel"):
        return np.take(np.take(value, made, axis=-2), active.read(node.inputs[0]), axis=-1)
    if node.kind in MAKES_CHANNELS and name.endswith("kernel"):
        read = active.read(node.inputs[0])
        if name == "depthwise_kernel":
            return np.take(value, read, axis=-2)
        multiplier = node.config["depth_multiplier"] if node.kind is Kind.SEPARABLE else 1
        read = (read[:, None] * multiplier + np.arange(multiplier)).reshape(-1)
        return np.take(np.take(value, read, axis=-2), made, axis=-1)
    if node.kind is Kind.DEPTHWISE and name.endswith("kernel") and "depth_multiplier" in node.config:
        return np.take(value, active.read(node.inputs[0]), axis=-2)
    return np.take(value, made, axis=-1) if value.shape and value.shape[-1] == node.channels else value
