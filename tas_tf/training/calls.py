"""The calls of a functional model in the order in which they run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tas_tf.graph.layers import plain_model


@dataclass(frozen=True)
class ModelCall:
    """A call of a layer or operation.

    Attributes:
        operation: The layer or operation.
        args: Call arguments, with symbolic tensors.
        kwargs: Further call arguments.
        outputs: What it returns, symbolic tensors in any structure.
    """

    operation: Any
    args: tuple
    kwargs: Mapping[str, Any]
    outputs: Any

    @functools.cached_property
    def reads(self) -> tuple[keras.KerasTensor, ...]:
        """The tensors among the arguments, without repetitions."""
        return tuple({id(one): one for one in tensors_in((self.args, dict(self.kwargs)))}.values())

    @functools.cached_property
    def makes(self) -> tuple[keras.KerasTensor, ...]:
        """The tensors that it returns."""
        return tuple(tensors_in(self.outputs))


@dataclass(frozen=True)
class ModelCalls:
    """All calls of a model.

    Attributes:
        inputs: The model's inputs, in their structure.
        calls: The calls in the order in which they run.
        outputs: The model's outputs, in their structure.
    """

    inputs: Any
    calls: tuple[ModelCall, ...]
    outputs: Any


def tensors_in(structure: Any) -> list[keras.KerasTensor]:
    """The symbolic tensors in a structure."""
    return [one for one in keras.tree.flatten(structure) if isinstance(one, keras.KerasTensor)]


def replace_tensors(structure: Any, replace: Callable[[keras.KerasTensor], Any]) -> Any:
    """Copies a structure and replaces the symbolic tensors in it."""
    return keras.tree.map_structure(lambda one: replace(one) if isinstance(one, keras.KerasTensor) else one, structure)


def run_call(call: ModelCall, known: Mapping[int, Any], *, training: bool) -> list[Any]:
    """Makes a call with values.

    Args:
        call: The call.
        known: Values of the tensors that it reads, by their `id`.
        training: Whether a layer acts as in training.

    Returns:
        Values of the tensors that it makes.
    """
    args, kwargs = replace_tensors((call.args, dict(call.kwargs)), lambda one: known[id(one)])
    if isinstance(call.operation, keras.Layer):
        kwargs["training"] = training  # as in a functional model, whatever the layer was called with
    return keras.tree.flatten(call.operation(*args, **kwargs))


def record_calls(model: keras.Model) -> ModelCalls:
    """Lists the calls of a functional model; a model within it is one call.

    Args:
        model: The model, left unchanged. The calls have its own layers.
    """
    calls: list[ModelCall] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = operation(*args, **kwargs)
        calls.append(ModelCall(operation, args, kwargs, outputs))
        return outputs

    copy = keras.models.clone_model(plain_model(model), clone_function=lambda layer: layer, call_function=call)
    return ModelCalls(copy.input, tuple(calls), copy.output)


def size_of(tensor: keras.KerasTensor) -> int:
    """Bytes of a tensor, for each image of a batch; of a tensor that doesn't depend on the batch, all its bytes.

    >>> size_of(keras.KerasTensor((None, 8, 8, 3), "float32")), size_of(keras.KerasTensor((5,), "bfloat16"))
    (768, 10)
    """
    kind = keras.backend.standardize_dtype(tensor.dtype)
    bits = {"bool": 8, "bfloat16": 16}.get(kind) or int("".join(filter(str.isdigit, kind)))
    return math.prod(size or 1 for size in tensor.shape) * bits // 8
