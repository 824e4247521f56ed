"""Rebuilds a network in tf_keras, for tools that only support Keras 2."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tf_keras

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import NOISES, activation_name, is_op
from tas_tf.graph.layer_library import LayerLibrary
from tas_tf.graph.layers import original_layer
from tas_tf.graph.nodes import Node
from tas_tf.qat.arithmetic import COMPOSED, normalization_as_rescaling, operation_as_layer
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, named_weights
from tas_tf.training.network import logits_of
from tas_tf.zoo.loading import in_precision

#: Largest difference allowed between the outputs of a network and of its twin, as a share of the largest output.
_TOLERANCE = 1e-4
#: Options that are dropped: weights are copied, so they need no initialisation, and the training has its own penalty.
_OF_FRESH_WEIGHTS = ("_initializer", "_regularizer", "_constraint")
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


class _TfKeras(LayerLibrary):
    """Makes Keras 2 layers from configs of Keras 3."""

    package = tf_keras

    def layer(self, node: Node, config: Mapping[str, Any]) -> Callable[..., Any]:
        config = {**config, "name": node.name}
        if is_op(node.module):
            function = operation_as_layer(node)
            if function is None:
                raise UserError(
                    f"Operation `{node.name}` ({node.class_name}) is a function that Keras 2 lacks. "
                    "Expected a layer in its place."
                )
            return function
        composed = COMPOSED.get(activation_name(config.get("activation")))
        if composed is not None:
            before = self.new(node.class_name, {**config, "activation": "linear"})
            return lambda *args, **kwargs: composed(before(*args, **kwargs), node.name)
        rescaling = None
        if node.class_name == "Normalization":
            rescaling = normalization_as_rescaling(config, len(node.shape))
        return self.new(node.class_name, config) if rescaling is None else self.new("Rescaling", rescaling)

    def new(self, class_name: str, config: Mapping[str, Any]) -> tf_keras.layers.Layer:
        kind = getattr(tf_keras.layers, class_name, None)
        name = config["name"]
        if kind is None:
            raise UserError(f"Layer `{name}` ({class_name}) is unknown to Keras 2.")
        renamed = {_RENAMED.get(class_name, {}).get(key, key): value for key, value in config.items()}
        accepted = _parameters(kind)
        options = {
            key: value
            for key, value in renamed.items()
            if key in accepted and not key.endswith(_OF_FRESH_WEIGHTS) and key != "dtype"
        }
        try:
            return kind(name=name, **{key: value for key, value in options.items() if key != "name"})
        except (TypeError, ValueError) as error:
            raise UserError(f"Layer `{name}` ({class_name}) can't be made in Keras 2: {error}") from error


TF_KERAS = _TfKeras()


def make_twin(model: keras.Model) -> tf_keras.Model:
    """Rebuilds a classifier in tf_keras, with the same weights, in float32 and ending in logits.

    Args:
        model: Functional or Sequential classifier of Keras 3.

    Raises:
        UserError: Keras 2 lacks a layer or computes it differently.
    """
    model = in_precision(model, "float32")
    # The toolkit supports dropout, but not augmentation or other noise, which do nothing in inference.
    graph = Graph.from_model(model).leaving_out(lambda node: node.is_augmentation or node.class_name in NOISES)
    space = SearchSpace.from_graph(graph, couple_trunk=False, may_be_fixed=True)
    shape = Shape.full(space)
    twin = build_student(space, shape, logits=True, library=TF_KERAS)
    for node in graph:
        if node.num_params:
            twin.get_layer(node.name).set_weights(list(named_weights(original_layer(model, node)).values()))
    _check_equal(twin, logits_of(model, space))
    return twin


def _check_equal(twin: tf_keras.Model, model: keras.Model) -> None:
    """Compares outputs on random images, because layers with the same name may compute different things."""
    images = np.random.default_rng(0).standard_normal((4, *model.input_shape[1:]), dtype=np.float32)
    expected = keras.ops.convert_to_numpy(model(images, training=False)).astype(np.float32)
    outputs = np.asarray(twin(images, training=False))
    difference, largest = float(np.max(np.abs(outputs - expected))), float(np.max(np.abs(expected)))
    if not difference <= _TOLERANCE * largest:
        raise UserError(
            f"The network computes something else in Keras 2: outputs differ by {difference:.3g}, and the largest is "
            f"{largest:.3g}. One of its layers works differently there."
        )


def _parameters(kind: type) -> frozenset[str]:
    """Returns the constructor arguments of a layer class and its bases."""
    classes = kind.__mro__[: kind.__mro__.index(tf_keras.layers.Layer)]
    return frozenset(name for each in classes for name in inspect.signature(each.__init__).parameters) | {"name"}
