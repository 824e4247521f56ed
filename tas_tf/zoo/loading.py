"""Finds a network by name: one of our own, one of `keras.applications`, or a `.keras` file."""

from __future__ import annotations

import difflib
import inspect
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras

from tas_tf.errors import UserError
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tas_tf.zoo.resnet_imagenet import resnet_imagenet

#: Our own networks by name.
ZOO: dict[str, Callable[..., keras.Model]] = {
    **{f"resnet{depth}": partial(resnet_cifar, depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet164": partial(resnet_cifar, 164, bottleneck=True),
    # The authors of TAS use zero initialisation in their ImageNet settings, but not for CIFAR.
    **{f"resnet{depth}": partial(resnet_imagenet, depth, zero_init=True) for depth in (18, 34, 50)},
}
_APPLICATIONS = {
    name: build
    for name, build in vars(keras.applications).items()
    if inspect.isfunction(build) and "include_top" in inspect.signature(build).parameters
}


def load_network(
    name: str, *, num_classes: int = 10, image_size: int | tuple[int, int] = 32, channels: int = 3
) -> keras.Model:
    """Builds a network by name, or loads it from a file.

    Args:
        name: One of `ZOO`, `keras.applications.NAME`, or the path of a `.keras` file.
        num_classes: Number of classes; ignored for a file.
        image_size: Height and width of the images, or one number for both; ignored for a file.
        channels: Channels of the images; ignored for a file.

    Raises:
        UserError: The name is unknown, the network can't be built for these images, or the file can't be read.

    Example:
        >>> import tas_tf
        >>> tas_tf.load_network("resnet20", num_classes=7, image_size=28, channels=1).output_shape
        (None, 7)
    """
    if name.endswith((".keras", ".h5")) or Path(name).is_file():
        return load_file(name)
    if name in ZOO:
        return ZOO[name](num_classes=num_classes, image_size=image_size, channels=channels)
    short = name.removeprefix("keras.applications.")
    if short not in _APPLICATIONS:
        known = [*ZOO, *(f"keras.applications.{other}" for other in _APPLICATIONS)]
        close = difflib.get_close_matches(name, known, 3, 0.5) or list(ZOO)
        raise UserError(
            f"`model`: there is no network {name!r}. Expected a name such as {', '.join(close)}, "
            "or the path of a `.keras` file."
        )
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        return _APPLICATIONS[short](weights=None, input_shape=(*size, channels), classes=num_classes)
    except ValueError as error:
        raise UserError(
            f"`model`: {name} can't be built for images of {size[0]}x{size[1]}x{channels} "
            f"and {num_classes} classes: {str(error).strip().splitlines()[0]}"
        ) from error


def load_file(path: str | Path) -> keras.Model:
    """Loads a `.keras` file.

    Raises:
        UserError: The file is missing, damaged, in another format, or needs code that isn't available.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"`model`: there is no file {path}.")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise UserError(f"`model`: {path} is damaged or isn't a `.keras` file, which is a zip archive.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its parts raise: zip, JSON, HDF5 and type errors
        sentences = re.split(r"\n|(?<=[.!]) ", str(error).strip()) if str(error).strip() else [type(error).__name__]
        raise UserError(f"`model`: {path} can't be loaded as a Keras 3 model: {sentences[0]}") from error


def in_precision(model: keras.Model, policy: str) -> keras.Model:
    """Returns the network with the same weights and one dtype policy for its layers.

    Args:
        model: Functional or Sequential model, whose layers have their own policies.
        policy: Name of a Keras dtype policy, such as `mixed_bfloat16`.

    Returns:
        The model itself if it already uses the policy, even with some layers, such as the last, in float32; else a
        copy.
    """
    found = {layer.dtype_policy.name for layer in model.layers if isinstance(layer, keras.Layer) and layer.weights}
    if policy in found | {"float32"} and found <= {policy, "float32"}:
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        # Operations of functional arithmetic have no policy: they compute in the dtype of their inputs.
        own = {"dtype": policy} if isinstance(layer, keras.Layer) else {}
        return type(layer).from_config({**config, **own})

    result = keras.models.clone_model(model, clone_function=clone, recursive=True)
    result.set_weights(model.get_weights())
    return result
