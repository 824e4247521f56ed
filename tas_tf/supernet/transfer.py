"""Copies weights into and out of a supernet."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tas_tf.graph.graph import Node
from tas_tf.graph.kinds import is_op
from tas_tf.graph.layers import original_layer
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import assign_slices, named_weights, weights_by_name
from tas_tf.supernet.build import Supernet
from tas_tf.supernet.layers.searchable_conv import SearchableConv


def load_teacher(supernet: Supernet, teacher: keras.Model, space: SearchSpace) -> None:
    """Copies a trained network's weights into a supernet. All candidates get the scale and offset of the full width."""
    for node in space.graph:
        if is_op(node.module) or not node.num_params:
            continue
        weights = weights_by_name(_holder(supernet, space, node))
        for name, value in named_weights(original_layer(teacher, node)).items():
            weights[name].assign(np.broadcast_to(value, weights[name].shape))


def inherit_from_supernet(student: keras.Model, supernet: Supernet, space: SearchSpace, shape: Shape) -> None:
    """Copies the weights that a shape keeps from a supernet to a student, with the scale and offset of its candidates.

    The running statistics of a trained supernet come from a mixture of shapes: recalibrate them for this shape first.
    """

    def weights_of(node: Node) -> Mapping[str, np.ndarray]:
        layer = _holder(supernet, space, node)
        weights = named_weights(layer)
        if isinstance(layer, SearchableConv):
            width = shape.widths[space.unit_of[_conv_of(space, node)]]
            candidate = layer.candidates.index(width)
            for name in ("gamma", "beta"):
                if name in weights:
                    weights[name] = weights[name][candidate]
        return weights

    assign_slices(student, space, shape, weights_of)


def _conv_of(space: SearchSpace, node: Node) -> str:
    return node.name if node.name in space.unit_of else node.inputs[0]


def _holder(supernet: Supernet, space: SearchSpace, node: Node) -> keras.Layer:
    """The supernet layer that holds a node's weights. A searched convolution also holds those of its normalisation."""
    conv = node.inputs[0] if node.name in space.norms.values() else node.name
    unit = space.unit.get(space.unit_of.get(conv, ""))
    searched = unit is not None and len(unit.candidates) > 1
    return supernet.body.get_layer(conv if searched else node.name)
