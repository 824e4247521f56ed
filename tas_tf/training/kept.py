"""What each call of a model keeps in memory for the backward pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tas_tf.training.calls import ModelCall, ModelCalls, replace_tensors, run_call

#: Images in the batches that calls are traced with: a prime number, by which hardly any other size can be divided.
_IMAGES = 997
#: Operations whose output shares the memory of their input.
_VIEWS = frozenset(["Reshape", "Identity", "IdentityN", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient"])
#: Operations that only look at the shape of what they read.
_SHAPES = frozenset(["Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"])


@dataclass(frozen=True)
class Kept:
    """What a call keeps until its gradient is computed.

    Attributes:
        tensors: Tensors that it reads or makes, by their `id`.
        inside: Bytes that it keeps besides, for each image.
        fixed: Bytes that it keeps however many images there are, such as matrices made from weights.
    """

    tensors: frozenset[int] = frozenset()
    inside: float = 0.0
    fixed: float = 0.0


def kept_by_calls(model: ModelCalls) -> list[Kept]:
    """What each call keeps for the backward pass; calls that no trained weight precedes keep nothing.

    Each call is traced with its gradient: it keeps the tensors that operations of the gradient read.

    Args:
        model: The calls of a model.
    """
    watched: set[int] = set()
    roots: dict[int, int] = {}
    traces: dict[str, _Trace] = {}
    found = []
    for call in model.calls:
        differentiable = [id(one) in watched for one in call.reads]
        if not getattr(call.operation, "trainable_variables", ()) and not any(differentiable):
            found.append(Kept())
            continue
        watched |= {id(one) for one in call.makes if _is_float(one.dtype)}
        key = _key(call, differentiable)
        trace = traces.get(key) or _trace(call, differentiable)
        if key is not None:
            traces[key] = trace
        tensors = [id(call.reads[place]) for place in trace.reads] + [id(call.makes[place]) for place in trace.makes]
        found.append(Kept(frozenset(roots.get(one, one) for one in tensors), trace.inside, trace.fixed))
        for made, read in trace.views.items():
            source = id(call.reads[read])
            roots[id(call.makes[made])] = roots.get(source, source)
    return found


@dataclass(frozen=True)
class _Trace:
    """What the gradient of a call reads.

    Attributes:
        reads: Places of the call's inputs among it.
        makes: Places of the call's outputs among it.
        inside: Bytes of other tensors with an axis for the images, for each image.
        fixed: Bytes of other tensors, without those of weights.
        views: For each output that shares the memory of an input, the place of the input.
    """

    reads: tuple[int, ...]
    makes: tuple[int, ...]
    inside: float
    fixed: float
    views: Mapping[int, int]


def _trace(call: ModelCall, differentiable: Sequence[bool]) -> _Trace:
    """Traces a call with its gradient. Nothing is computed, and no state changes.

    Args:
        call: The call.
        differentiable: For each tensor that it reads, whether a gradient is computed.
    """
    found: list[_Trace] = []

    @tf.autograph.experimental.do_not_convert
    def run(*inputs: tf.Tensor) -> None:
        graph = tf.compat.v1.get_default_graph()
        sources = [one for one, counts in zip(inputs, differentiable, strict=True) if counts]
        values = {id(one): tf.zeros(one.shape, one.dtype) for one in getattr(call.operation, "variables", ())}
        weights = [values[id(one)] for one in getattr(call.operation, "trainable_variables", ())]
        mapping = [(one, values[id(one)]) for one in getattr(call.operation, "variables", ())]
        # This scope keeps losses and updates from reaching the layer.
        with keras.StatelessScope(mapping, collect_losses=True) as scope, tf.GradientTape() as tape:
            tape.watch([*sources, *weights])
            known = {id(symbol): value for symbol, value in zip(call.reads, inputs, strict=True)}
            outputs = run_call(call, known, training=True)
        forward = set(graph.get_operations())
        targets = [one for one in (*outputs, *scope.losses) if _is_float(one.dtype)]
        tape.gradient(targets, [*sources, *weights])
        backward = [one for one in graph.get_operations() if one not in forward and one.type not in _SHAPES]
        read = {_root(tensor, forward).ref() for one in backward for tensor in one.inputs}
        ins, outs = [one.ref() for one in inputs], [_root(one, forward).ref() for one in outputs]
        given = {one.ref() for one in values.values()}
        inside = [one.deref() for one in read - {*ins, *outs} - given if one.deref().op in forward]
        found.append(
            _Trace(
                tuple(place for place, one in enumerate(ins) if one in read),
                tuple(place for place, one in enumerate(outs) if one in read and one not in ins),
                sum(_bytes(one) for one in inside if _has_images(one)) / _IMAGES,
                sum(_bytes(one) for one in inside if not _has_images(one)),
                {place: ins.index(one) for place, one in enumerate(outs) if one in ins},
            )
        )

    tf.function(run).get_concrete_function(*map(_spec, call.reads))
    return found[0]


def _root(tensor: tf.Tensor, forward: set[tf.Operation]) -> tf.Tensor:
    """The tensor whose memory a tensor shares."""
    while tensor.op in forward and tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def _has_images(tensor: tf.Tensor) -> bool:
    """Whether an axis counts images, perhaps together with positions."""
    return tensor.shape.rank is not None and any(size and size % _IMAGES == 0 for size in tensor.shape)


def _bytes(tensor: tf.Tensor) -> int:
    return (tensor.shape.num_elements() or 0) * tensor.dtype.size if tensor.shape.rank is not None else 0


def _spec(symbol: keras.KerasTensor) -> tf.TensorSpec:
    """A tensor's shape with a batch of images; other unknown sizes are 1."""
    first, *others = (*symbol.shape, None)[: len(symbol.shape)] or (1,)
    sizes = [_IMAGES if first is None else first, *(size or 1 for size in others)]
    return tf.TensorSpec(sizes if symbol.shape else [], symbol.dtype)


def _is_float(dtype: Any) -> bool:
    return tf.as_dtype(dtype).is_floating


def _key(call: ModelCall, differentiable: Sequence[bool]) -> str | None:
    """A text that is equal for calls that keep the same; `None` if there is none."""
    if not isinstance(call.operation, keras.Layer):
        return None
    try:
        config = {**call.operation.get_config(), "name": ""}
        places = {id(one): [place, str(one.shape), str(one.dtype)] for place, one in enumerate(call.reads)}
        given = replace_tensors((call.args, dict(call.kwargs)), lambda one: places[id(one)])
        return json.dumps([type(call.operation).__qualname__, config, given, differentiable], default=str)
    except (NotImplementedError, TypeError, ValueError):
        return None  # a layer of the user's without a config, or one that isn't JSON: it is traced at each call
