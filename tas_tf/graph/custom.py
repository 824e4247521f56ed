"""Layers and functions of the user's own: makes them known, and keeps what the user declares about their channels."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import keras
import numpy as np

from tas_tf.errors import UserError
from tas_tf.graph.kinds import Kind
from tas_tf.graph.layers import call_layer, first_line, is_from_keras, make_layer
from tas_tf.graph.nodes import Node
from tas_tf.scripts import import_file

#: Objects by name, as in Keras, or Python files that define them.
CustomObjects = Mapping[str, Any] | str | Path | Sequence[str | Path]

#: What using code from a file risks.
_RISK = (
    "`unsafe_load`: the Python code inside the Lambda layers of a file runs, and can do whatever you can do. Use it "
    "only for files that you trust. Files of the student hold the same code: `keras.models.load_model` needs "
    "`safe_mode=False` to open them."
)

#: What code inside a file lacks.
ALONE = (
    "A saved lambda has no access to imports and variables of the program that it comes from. Import and define inside "
    "it what it needs, or make it a layer class."
)

_FLOAT32 = {"dtype": "float32"}
_declared: dict[type, Kind] = {}
_accepted: set[str] = set()  # classes that are read only if the user accepts their code


def register_layer(
    layer_class: type[keras.layers.Layer], *, keeps_channels: bool = False, keeps_zeros: bool = False
) -> type[keras.layers.Layer]:
    """Makes a layer class of your own known, and declares what its layers do to channels.

    Channels that reach a layer of an unknown class can't be dropped. If the class acts on each channel alone, say so:
    then the convolutions before it can shrink. Weights with one number for each channel must have the channels on their
    last axis. What is declared is tried out on each layer when a network is read.

    Args:
        layer_class: The class. Its `get_config` must describe its layers without their number of channels.
        keeps_channels: Whether each channel of the output depends on the same channel of the input alone.
        keeps_zeros: Whether a channel of zeros stays zero, in training too.

    Returns:
        The class.

    Raises:
        UserError: An argument is invalid.

    Example:
        >>> import keras
        >>> import tas_tf
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.scale = self.add_weight(shape=shape[-1:], initializer="ones")
        ...
        ...     def call(self, images):
        ...         return images * self.scale
        >>> Scale = tas_tf.register_layer(Scale, keeps_channels=True, keeps_zeros=True)
        >>> images = keras.Input((8, 8, 3))
        >>> x = keras.layers.GlobalAveragePooling2D()(Scale()(keras.layers.Conv2D(8, 3, name="conv")(images)))
        >>> tas_tf.describe(keras.Model(images, keras.layers.Dense(4)(x))).units[0].name
        'conv'
    """
    if not (inspect.isclass(layer_class) and issubclass(layer_class, keras.layers.Layer)):
        raise UserError(f"`layer_class` must be a subclass of keras.layers.Layer. Received: {layer_class!r}.")
    if keeps_zeros and not keeps_channels:
        raise UserError(
            "`keeps_zeros` says something about each channel alone. Expected `keeps_channels`=True with it."
        )
    _register(keras.saving.get_registered_name(layer_class), layer_class)
    if keeps_channels:
        _declared[layer_class] = Kind.KEEPS_ZEROS if keeps_zeros else Kind.SHIFTS_ZEROS
    else:
        _declared.pop(layer_class, None)
    return layer_class


def check_lambda(node: Node, shapes: Mapping[str, tuple]) -> None:
    """Checks that the code of a Lambda layer runs without the program that it comes from.

    Args:
        node: The layer's node.
        shapes: Output shapes by node name.

    Raises:
        UserError: It doesn't, so that no file of the network could be loaded.
    """
    zeros = {name: keras.ops.zeros([size or 8 for size in (1, *shapes[name][1:])]) for name in node.inputs}
    made = make_layer(node)
    try:
        call_layer(made, node, zeros)
    except Exception as error:  # the user's code may raise anything
        raise UserError(
            f"Layer `{node.name}` is a Lambda whose code doesn't run in a copy: {first_line(error)}. {ALONE}"
        ) from error


def declared_kind(layer: Any, num_tensors: int) -> Kind | None:
    """How a layer treats channels, as the user declared it; `None` if nothing was declared.

    Args:
        layer: The layer.
        num_tensors: Number of tensors that it reads.
    """
    kind = _declared.get(type(layer))
    if kind is None or num_tensors == 1:
        return kind
    return Kind.COMBINE if kind is Kind.KEEPS_ZEROS else Kind.OPAQUE


def accept_lambdas(say: Callable[[str], None] | None = None) -> None:
    """Lets networks with Lambda layers be read for the rest of the process. This alone loads no file.

    Args:
        say: Called the first time with what that risks; by default it is a warning.
    """
    if not lambdas_are_accepted():
        (say or partial(warnings.warn, stacklevel=4))(_RISK)
        _accepted.add("Lambda")


def admit(custom_objects: CustomObjects | None, *, unsafe_load: bool) -> None:
    """Makes known and accepts what a user gives with a network, for the rest of the process.

    Args:
        custom_objects: See `make_known`.
        unsafe_load: Whether networks may have Lambda layers.

    Raises:
        UserError: See `make_known`.
    """
    make_known(custom_objects)
    if unsafe_load:
        accept_lambdas()


def lambdas_are_accepted() -> bool:
    """Whether networks with Lambda layers may be read."""
    return "Lambda" in _accepted


def check_declared(node: Node, layer: Any, shapes: Mapping[str, tuple]) -> None:
    """Checks what the user declared about a layer, on random images and with every second channel left out.

    Args:
        node: The layer's node, with its own kind.
        layer: The layer.
        shapes: Output shapes by node name.

    Raises:
        UserError: The layer doesn't do what was declared, or can't be made for fewer channels.
    """
    if type(layer) not in _declared or node.kind is Kind.OPAQUE:
        return
    channels = node.channels
    if any(shapes[name][-1] != channels for name in node.inputs):
        raise _refuted(node, f"it makes {channels} channels of {', '.join(str(shapes[n][-1]) for n in node.inputs)}")
    random, kept = np.random.default_rng(0), np.arange(0, channels, 2)
    images = {name: random.normal(size=[size or 8 for size in (2, *shapes[name][1:])]) for name in node.inputs}
    whole, narrow = (
        _Tried.make(node, {name: value[..., part] for name, value in images.items()})
        for part in (np.arange(channels), kept)
    )
    whole.assign([keras.ops.convert_to_numpy(weight) for weight in layer.weights])
    for weight, other in zip(whole.layer.weights, narrow.layer.weights, strict=True):
        sliced = weight.shape[:-1] + (len(kept),) if weight.shape[-1:] == (channels,) else weight.shape
        if tuple(other.shape) != tuple(sliced):
            raise _refuted(
                node,
                f"its weight `{weight.name}` has the shape {tuple(weight.shape)} for {channels} channels and "
                f"{tuple(other.shape)} for {len(kept)}; channels must be on the last axis alone",
            )
    narrow.assign([np.take(w, kept, -1) if w.shape[-1:] == (channels,) else w for w in whole.weights()])
    expected = whole.run(images)[..., kept]
    found = narrow.run({name: value[..., kept] for name, value in images.items()})
    if expected.shape != found.shape or not np.allclose(found, expected, 1e-3, 1e-4 * np.abs(expected).max(initial=1)):
        raise _refuted(node, "some channels of its output change when other channels are left out")
    if node.kind is not Kind.SHIFTS_ZEROS and np.any(whole.run({name: 0 * value for name, value in images.items()})):
        raise _refuted(node, "it doesn't map zeros to zeros. Declare it without `keeps_zeros`")


class _Tried(NamedTuple):
    """A copy of a layer to try out."""

    node: Node
    layer: Any

    @classmethod
    def make(cls, node: Node, images: Mapping[str, np.ndarray]) -> _Tried:
        """Makes a copy for images of any number of channels."""
        found = cls(node, make_layer(node, {**node.config, **_FLOAT32} if "dtype" in node.config else None))
        try:
            found.run(images)
        except Exception as error:  # the user's code may raise anything
            raise _refuted(node, f"it can't be made for fewer channels: {first_line(error)}") from error
        return found

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        for weight, value in zip(self.layer.weights, weights, strict=True):
            weight.assign(value)

    def weights(self) -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(weight) for weight in self.layer.weights]

    def run(self, images: Mapping[str, np.ndarray]) -> np.ndarray:
        tensors = {name: keras.ops.convert_to_tensor(value, "float32") for name, value in images.items()}
        return keras.ops.convert_to_numpy(call_layer(self.layer, self.node, tensors))


def _refuted(node: Node, reason: str) -> UserError:
    return UserError(
        f"Layer `{node.name}` ({node.class_name}) is registered with `keeps_channels`=True, but {reason}. Mend the "
        "class, or register it without `keeps_channels`: then the channels that reach it are kept."
    )


def make_known(custom_objects: CustomObjects | None) -> None:
    """Makes objects known to Keras for the rest of the process.

    Args:
        custom_objects: Objects by the names under which Keras saves them, or Python files. A file is imported; its
            layer classes, other classes and functions become known, and whatever it registers itself.

    Raises:
        UserError: A file is missing or can't be imported, two files define the same name, or a function is called like
            one of Keras's own.
    """
    if not custom_objects:
        return
    if isinstance(custom_objects, Mapping):
        for name, found in custom_objects.items():
            _register(name, found)
        return
    paths = [custom_objects] if isinstance(custom_objects, str | Path) else custom_objects
    places: dict[str, tuple[Any, str | Path]] = {}
    for path in paths:
        for name, found in _defined(import_file(Path(path), "custom_objects")):
            other, place = places.setdefault(name, (found, path))
            if other is not found:
                raise UserError(f"`custom_objects`: both {place} and {path} define `{name}`. Rename one of the two.")
            _register(name, found)


def _register(name: str, found: Any) -> None:
    if inspect.isfunction(found) and hasattr(keras.activations, name) and not is_from_keras(found):
        raise UserError(
            f"`custom_objects`: the function `{name}` is called like one of Keras's own, which it would replace. "
            "Give it another name."
        )
    keras.saving.get_custom_objects()[name] = found


def _defined(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module defines, and the layer classes that it imports, by the names under which Keras saves them."""
    for found in vars(module).values():
        if inspect.isclass(found) or inspect.isfunction(found):
            is_layer = inspect.isclass(found) and issubclass(found, keras.layers.Layer) and not is_from_keras(found)
            if is_layer or found.__module__ == module.__name__:
                yield keras.saving.get_registered_name(found), found
