"""Layers whose mode, training or inference, isn't that of the model: refused where a file could not do the same."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tas_tf.errors import UserError
from tas_tf.graph.nodes import Node


def check_mode(layer: Any, name: str) -> None:
    """Refuses a layer that is called with `training=True`, unless that is the default of its class.

    Keras writes the default of layers that process images into the config as if it had been asked for; such layers
    follow the mode of the model.

    Args:
        layer: The layer, whose config says that it was called with `training=True`.
        name: What an error calls it.

    Raises:
        UserError: It is always in training mode.
    """
    parameter = inspect.signature(layer.call).parameters.get("training")
    if parameter is None or parameter.default is not True:
        raise UserError(
            f"Layer `{name}` ({type(layer).__name__}) is called with `training=True`, so it acts in inference as it "
            "does in training. Monte Carlo dropout and the like are not supported: outputs and files would be random. "
            "Build the model without `training=True`; its layers then follow the mode of the model."
        )


def check_same_size(node: Node, shapes: Mapping[str, tuple]) -> None:
    """Refuses augmentation that changes the size of images, as `RandomCrop` does.

    Args:
        node: Any layer.
        shapes: Output shapes by node name.

    Raises:
        UserError: Images would have another size in inference than in training.
    """
    if node.is_augmentation and node.shape != shapes[node.inputs[0]]:
        made, read = ("x".join(map(str, shape[1:])) for shape in (node.shape, shapes[node.inputs[0]]))
        raise UserError(
            f"Layer `{node.name}` ({node.class_name}) makes {made} of {read} in training alone: in inference Keras "
            "passes images on uncut. Crop in the input pipeline, or put `CenterCrop` or `Resizing` in its place."
        )
