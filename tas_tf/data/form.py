"""The form of a user's data: one or several inputs and outputs of a network, with weights of images or without."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph

#: An array, or arrays by the names of inputs or outputs.
Arrays = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Form:
    """What a network takes and returns.

    Attributes:
        inputs: Names of the inputs, in order.
        shapes: Shape of an example of each input, such as height, width and channels; `None` for sides that may vary.
        outputs: Names of the outputs, in order.
    """

    inputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    outputs: tuple[str, ...] = ("output",)

    @classmethod
    def of(cls, graph: Graph) -> Form:
        """The form of a network's data."""
        outputs = tuple(end.name for end in graph.ends)
        if graph.packing is None:
            return cls((graph.input.name,), (tuple(graph.input.shape[1:]),), outputs)
        shapes = tuple(tuple(node.shape[1:]) for node in graph.packing.inputs)
        return cls(graph.packing.input_names, shapes, outputs)

    @classmethod
    def of_images(cls, *shape: int | None) -> Form:
        """The form of images of a shape, with one label."""
        return cls(("images",), (shape,))

    @property
    def image(self) -> int:
        """Number of the input with most axes: the images, if there are images."""
        return max(range(len(self.shapes)), key=lambda number: len(self.shapes[number]))

    @property
    def is_packed(self) -> bool:
        """Whether there are several inputs, which networks take side by side."""
        return len(self.shapes) > 1

    @property
    def several(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of an example of each input by name, if there are several; otherwise empty."""
        return dict(zip(self.inputs, self.shapes, strict=True)) if self.is_packed else {}

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """Shape of an example as networks take it."""
        return (sum(map(math.prod, self.shapes)),) if self.is_packed else self.shapes[0]

    def pack(self, parts: Any) -> tf.Tensor:
        """Makes a batch float32 and puts several inputs side by side."""
        if not self.is_packed:
            return tf.cast(parts, tf.float32)
        flat = [
            tf.reshape(tf.cast(part, tf.float32), [-1, math.prod(shape)])
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return tf.concat(flat, axis=1)

    def with_image(self, images: tf.Tensor, values: tf.Tensor) -> list[tf.Tensor]:
        """Puts images and the numbers of all other inputs, `[batch, numbers]`, in the order of the inputs."""
        others = [math.prod(shape) for number, shape in enumerate(self.shapes) if number != self.image]
        parts = tf.split(values, others, axis=1)
        parts.insert(self.image, images)
        return parts

    def change_image(self, packed: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Changes the images of several inputs that are packed side by side."""
        parts = tf.split(packed, [math.prod(shape) for shape in self.shapes], axis=1)
        images = tf.reshape(parts[self.image], [-1, *self.shapes[self.image]])
        return self.pack([*parts[: self.image], change(images), *parts[self.image + 1 :]])

    def unpack(self, packed: np.ndarray) -> dict[str, np.ndarray]:
        """Takes several inputs, packed side by side, `[n, numbers]`, apart by name.

        >>> Form(("a", "b"), ((2,), (1, 1))).unpack(np.array([[1, 2, 3]]))["b"].tolist()
        [[[3]]]
        """
        bounds = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = zip(self.inputs, self.shapes, np.split(packed, bounds, axis=1), strict=True)
        return {name: part.reshape(len(packed), *shape) for name, shape, part in parts}

    def arrange(self, argument: str, element: Sequence[Any]) -> tuple[Any, Any]:
        """Puts an element of a user's data in order.

        Args:
            argument: Name of the data in messages.
            element: `(images, labels)` or `(images, labels, weights)` of tensors, arrays or specifications.

        Returns:
            Inputs, a tuple if there are several, and labels, a tuple for several outputs. With weights, each label is
            `(label, weight)`.

        Raises:
            UserError: Inputs or outputs are missing.
        """
        given, labels, *weights = element
        images = _parts(argument, "inputs", given, self.inputs)
        labels = _parts(argument, "labels", labels, self.outputs)
        if not weights or weights[0] is None:
            return images, labels
        if len(self.outputs) == 1:
            return images, (labels, _parts(argument, "sample weights", weights[0], self.outputs))
        one_for_all = not isinstance(weights[0], Mapping | list | tuple)
        each = weights * len(labels) if one_for_all else _parts(argument, "sample weights", weights[0], self.outputs)
        return images, tuple(zip(labels, each, strict=True))


def _parts(argument: str, what: str, given: Any, names: Sequence[str]) -> Any:
    """The parts of a dictionary, list or tuple in the order of names; the part alone if there is one name."""
    if len(names) == 1:
        return _only(given, names[0])
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        if not missing:
            return tuple(given[name] for name in names)
        received = f"a dictionary without {', '.join(missing)}"
    elif isinstance(given, list | tuple):
        if len(given) == len(names):
            return tuple(given)
        received = f"{len(given)} of them"
    else:
        received = type(given).__name__
    raise UserError(
        f"`{argument}` must have {what} for {', '.join(names)}, in a dictionary or in this order. Received: {received}."
    )


def _only(given: Any, name: str) -> Any:
    """The only part of a dictionary or tuple, or what was given."""
    if isinstance(given, Mapping):
        return given[name] if name in given else next(iter(given.values())) if len(given) == 1 else given
    return given[0] if isinstance(given, tuple) and len(given) == 1 else given
