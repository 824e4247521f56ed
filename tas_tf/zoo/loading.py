"""Finds a network by name: one of our own, one of `keras.applications`, or a `.keras` file."""

from __future__ import annotations

import difflib
import inspect
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras

from tas_tf.errors import UserError
from tas_tf.graph.custom import CustomObjects, accept_lambdas, make_known
from tas_tf.graph.layers import copy_layer
from tas_tf.zoo.keras2 import load_old_file
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tas_tf.zoo.resnet_imagenet import resnet_imagenet
from tas_tf.zoo.saved import SUFFIXES, SavedNetwork, refuse_links, refuse_other_formats
from tas_tf.zoo.trusted import find_stranger

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

#: Names of files that say nothing, such as those that Keras makes up for models.
_MADE_UP = re.compile(r"(functional|sequential|model|keras_model)(_\d+)?")


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def load_network(
    name: str,
    *,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
    say: Callable[[str], None] = _warn,
) -> keras.Model:
    """Builds a network by name, or loads it from a file.

    Args:
        name: One of `ZOO`, `keras.applications.NAME`, or the path of a `.keras` or `.h5` file.
        num_classes: Number of classes; ignored for a file.
        image_size: Height and width of the images, or one number for both; ignored for a file.
        channels: Channels of the images; ignored for a file.
        custom_objects: Layer classes and functions of your own, by name, or Python files that define them.
        unsafe_load: Also loads Lambda layers. The Python code inside a file runs then, so you must trust the file.
        say: Called with what to know about a file; by default it is a warning.

    Raises:
        UserError: The name is unknown, the network can't be built for these images, or the file can't be read.

    Example:
        >>> import tas_tf
        >>> tas_tf.load_network("resnet20", num_classes=7, image_size=28, channels=1).output_shape
        (None, 7)
    """
    make_known(custom_objects)
    if is_file_name(name):
        model = load_file(name, unsafe_load=unsafe_load, say=say)
        _name_after(model, Path(name))
        return model
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


def is_file_name(name: str) -> bool:
    """Whether a name means a file, or the folder of a SavedModel, rather than a network that can be built.

    >>> is_file_name("mine.keras"), is_file_name("resnet20")
    (True, False)
    """
    path = Path(name)
    return path.suffix.lower() in SUFFIXES or path.is_file() or (path / "saved_model.pb").is_file()


def load_file(path: str | Path, *, unsafe_load: bool = False, say: Callable[[str], None] = _warn) -> keras.Model:
    """Loads a `.keras` or `.h5` file; files of Keras 2 are converted.

    Args:
        path: The file.
        unsafe_load: See `load_network`.
        say: See `load_network`.

    Raises:
        UserError: The file is missing, damaged, in another format, or needs code or an extra that isn't available.
    """
    path = Path(path)
    refuse_other_formats(path)
    saved = SavedNetwork.read(path)
    if lambdas := saved.layers_with("Lambda", "__lambda__"):
        if not unsafe_load:
            raise UserError(
                f"`model`: {path} holds Python code, in Lambda layers ({', '.join(lambdas)}), which could do "
                "anything. If you trust the file, give `unsafe_load`; otherwise, replace these by layers without code."
            )
        accept_lambdas(say)
    refuse_links(path)
    if stranger := find_stranger(saved.config):
        raise UserError(
            f"`model`: {path} isn't loaded: layer `{stranger.layer}` needs the {stranger.sort} {stranger.name}, which "
            "can't be part of a network. Keras writes no such files."
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=not unsafe_load)
    except Exception as error:  # Keras raises whatever its parts raise: zip, JSON, HDF5 and type errors
        if not saved.is_old:
            if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
                raise UserError(f"`model`: {path} is an HDF5 file. Rename it so that it ends in .h5.") from error
            message = f"`model`: {path} can't be loaded as a Keras 3 model: {saved.explain(error)}"
            raise UserError(message) from error
        model = load_old_file(path, saved, unsafe_load=unsafe_load, say=say)
    return _without_lists(model)


def _without_lists(model: keras.Model) -> keras.Model:
    """Takes input and output of a functional model out of the lists in which HDF5 files put them.

    Keras warns of each call that gives an image instead of a list of one.
    """
    if type(model).__name__ != "Functional":
        return model
    inputs, outputs = (
        given[0] if isinstance(given, list) and len(given) == 1 else given for given in (model.input, model.output)
    )
    if inputs is model.input and outputs is model.output:
        return model
    return keras.Model(inputs, outputs, name=model.name)


def _name_after(model: keras.Model, path: Path) -> None:
    """Calls a network by the name of its file.

    Names of built-in networks stay, since published shapes refer to them; and so do other names where that of the file
    says nothing.
    """
    stem = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("_.-")
    if stem and model.name not in ZOO and not _MADE_UP.fullmatch(stem):
        model.name = stem


def losses_in_file(path: str | Path, *, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """What the model in a file was compiled with.

    Args:
        path: A `.keras` or `.h5` file.
        say: Gets a line for the user if a loss is unknown.

    Returns:
        `loss`, `None` if the model wasn't compiled or with an unknown loss, and `loss_weights`, as
        `keras.Model.compile` takes them.

    Raises:
        UserError: The file is damaged, or isn't one of a whole model.
    """
    path = Path(path)
    compiled = SavedNetwork.read(path).compiled
    saved = compiled.get("loss")
    unknown: list[Any] = []
    found = _saved_loss(saved, unknown)
    if unknown:
        say(
            f"`model`: the loss that {path} was compiled with isn't known, so that the standard loss of the task takes "
            "its place. Name the Python file that defines it as `custom_objects`, or give `loss`."
        )
    return {"loss": found, "loss_weights": compiled.get("loss_weights")}


def _saved_loss(saved: Any, unknown: list[Any]) -> Any:
    """A loss, or a list or dictionary of losses, from how Keras saves it; adds losses of a user's own to a list."""
    if isinstance(saved, list):
        return [_saved_loss(one, unknown) for one in saved]
    if isinstance(saved, dict) and "class_name" not in saved:
        return {name: _saved_loss(one, unknown) for name, one in saved.items()}
    if isinstance(saved, dict) and isinstance(saved.get("config"), dict):
        # Keras 2 has a value that Keras 3 doesn't know.
        config = {name: value for name, value in saved["config"].items() if (name, value) != ("reduction", "auto")}
        saved = {**saved, "config": config}
    try:
        found = None if find_stranger(saved) else keras.losses.get(saved)
    except (TypeError, ValueError):
        found = None
    if found is None and saved is not None:
        unknown.append(saved)
    return found


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
        # Operations of functional arithmetic have no policy: they compute in the dtype of their inputs.
        return copy_layer(layer, **({"dtype": policy} if isinstance(layer, keras.Layer) else {}))

    result = keras.models.clone_model(model, clone_function=clone, recursive=True)
    result.set_weights(model.get_weights())
    return result
