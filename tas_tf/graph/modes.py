"""Rejects layers that behave differently in training and inference in a way that exported files can't reproduce."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tas_tf.errors import UserError
from tas_tf.graph.nodes import Node


def check_mode(layer: Any, name: str) -> None:
    """Rejects a layer that is called with `training=True`, unless `True` is the default of its class.

    Image processing layers have this default, and Keras writes it into the config like an explicit argument. These
    layers follow the mode of the model.

    Args:
        layer: A layer whose config says that it was called with `training=True`.
        name: Name of the layer in error messages.

    Raises:
        UserError: If the layer is always in training mode.
    """
    parameter = inspect.signature(layer.call).parameters.get("training")
    if parameter is None or parameter.default is not True:
        raise UserError(
            f"Layer `{name}` ({type(layer).__name__}) is called with `training=True`, so it acts in inference as it "
            "does in training. Monte Carlo dropout and similar techniques are not supported: outputs would be random. "
            "Build the model without `training=True`; its layers then follow the mode of the model."
        )


def check_same_size(node: Node, shapes: Mapping[str, tuple]) -> None:
    """Rejects augmentation that changes the image size, such as `RandomCrop`.

    Args:
        node: Any layer.
        shapes: Output shapes by node name.

    Raises:
        UserError: If images would have different sizes in training and inference.
    """
    if node.is_augmentation and node.shape != shapes[node.inputs[0]]:
        made, read = ("x".join(map(str, shape[1:])) for shape in (node.shape, shapes[node.inputs[0]]))
        raise UserError(
            f"Layer `{node.name}` ({node.class_name}) turns {read} images into {made} only in training: in inference "
            "Keras leaves their size unchanged. Crop in the input pipeline, or use `CenterCrop` or `Resizing` instead."
        )
