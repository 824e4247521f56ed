"""What a network takes and returns as NumPy arrays: an array, or a dictionary of arrays if there are several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tas_tf.data.form import Arrays
from tas_tf.errors import UserError
from tas_tf.graph.packing import names_of


def each(function: Callable[[np.ndarray], Any], arrays: Arrays) -> Any:
    """Applies a function to the array, or to each one.

    >>> each(len, {"a": np.zeros(2), "b": np.zeros(2)})
    {'a': 2, 'b': 2}
    """
    if isinstance(arrays, Mapping):
        return {name: function(array) for name, array in arrays.items()}
    return function(arrays)


def as_inputs(model: keras.Model, arrays: Arrays) -> Arrays:
    """The arrays in the types of a network's inputs, which aren't float32 where it reads whole numbers."""
    if isinstance(arrays, Mapping):
        types = {name: one.dtype for name, one in zip(names_of(model, "inputs"), model.inputs, strict=True)}
        return {name: array.astype(types[name], copy=False) for name, array in arrays.items()}
    return arrays.astype(model.inputs[0].dtype, copy=False)


def listed(arrays: Arrays) -> list[np.ndarray]:
    """The arrays, by name in sorted order."""
    return [arrays[name] for name in sorted(arrays)] if isinstance(arrays, Mapping) else [arrays]


def count(arrays: Arrays) -> int:
    """Number of examples."""
    return len(listed(arrays)[0])


def check_lengths(argument: str, arrays: Arrays) -> None:
    """Checks that all arrays have as many examples.

    Raises:
        UserError: They haven't.
    """
    if isinstance(arrays, Mapping) and len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} of {name}" for name, array in arrays.items())
        raise UserError(f"`{argument}` must have as many examples of each input. Received: {lengths}.")


def in_batches(run: Callable[[Arrays], Arrays], arrays: Arrays, batch_size: int) -> Arrays:
    """Runs examples in batches and puts the results together.

    Raises:
        UserError: The arrays have different lengths.
    """
    check_lengths("images", arrays)
    starts = range(0, count(arrays), batch_size)
    return together([run(each(lambda one, start=start: one[start : start + batch_size], arrays)) for start in starts])


def together(parts: Sequence[Arrays]) -> Arrays:
    """Concatenates the results of several batches."""
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)
