"""Networks that take images of any size, such as `(None, None, 3)`: their cost depends on the size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.layers import plain_model


def takes_any_size(model: Any) -> bool:
    """Whether a model's only input leaves a side of the image open."""
    tensors = getattr(model, "inputs", None) or ()
    return len(tensors) == 1 and None in tensors[0].shape[1:]


def fixed_size(model: keras.Model) -> int | tuple[int, int] | None:
    """Height and width of the images that a model takes, or one number for both; `None` if it leaves any open."""
    for tensor in model.inputs:
        if len(tensor.shape) == 4 and None not in (sides := tuple(tensor.shape[1:3])):
            return sides[0] if sides[0] == sides[1] else sides
    return None


def with_image_size(model: keras.Model, image_shape: Sequence[int]) -> keras.Model:
    """Returns a model of the same layers for images of one size; other models are returned as they are.

    Args:
        model: Functional or Sequential model.
        image_shape: Height, width and channels.

    Raises:
        UserError: If the model takes no images of this size.
    """
    if not takes_any_size(model):
        return model
    own = tuple(model.inputs[0].shape[1:])
    pairs = zip(own, image_shape, strict=False)
    fits = len(own) == len(image_shape) and all(side in (None, size) for side, size in pairs)
    try:
        if fits:
            return _called_with(model, image_shape)
        reason = "the sides that are given differ"
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
    raise UserError(
        f"`model` takes images of {_in_words(own)}. Received: images of {_in_words(image_shape)}, but {reason}."
    )


def with_sizes_of(model: keras.Model, other: keras.Model) -> keras.Model:
    """Returns a model of the same layers that takes images of any size if another one does.

    Args:
        model: A student of `other`.
        other: Functional or Sequential model.
    """
    return _called_with(model, other.inputs[0].shape[1:]) if takes_any_size(other) else model


def _called_with(model: keras.Model, image_shape: Sequence[int | None]) -> keras.Model:
    (tensor,) = model.inputs
    images = keras.Input(tuple(image_shape), dtype=tensor.dtype, name=tensor.name)
    return keras.models.clone_model(plain_model(model), input_tensors=images, clone_function=lambda layer: layer)


def _in_words(shape: Sequence[int | None]) -> str:
    return "x".join("any" if side is None else str(side) for side in shape)
