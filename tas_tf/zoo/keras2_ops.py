"""The TensorFlow functions that Keras 2 keeps in functional models, `TFOpLambda`, as operations of Keras 3."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops


def _array(value: Any) -> Any:
    return np.asarray(value, "float32") if isinstance(value, (list, tuple)) else value


def _binary(function: Callable) -> Callable:
    return lambda x, y, name=None: function(_array(x), _array(y))


def _unary(function: Callable) -> Callable:
    """A function of one tensor, whose name differs among functions of TensorFlow."""

    def call(*args: Any, name: str | None = None, **kwargs: Any) -> Any:
        (x,) = (*args, *kwargs.values())
        return function(x)

    return call


def _reduce(function: Callable) -> Callable:
    return lambda input_tensor, axis=None, keepdims=False, name=None: function(input_tensor, axis, keepdims=keepdims)


def _pad(
    tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: float = 0, name: str | None = None
) -> Any:
    pairs = [tuple(map(int, pair)) for pair in paddings]
    return ops.pad(tensor, pairs, mode.lower(), constant_values if mode == "CONSTANT" else None)


def _resize(images: Any, size: Any, method: str = "bilinear", antialias: bool = False, **options: Any) -> Any:
    if options.get("preserve_aspect_ratio"):
        raise ValueError("the aspect ratio is preserved")
    return ops.image.resize(images, tuple(map(int, size)), interpolation=method, antialias=antialias)


#: Operations of Keras 3 by the name of TensorFlow's function; arguments are called as there.
OPERATIONS: dict[str, Callable] = {
    **dict.fromkeys(("__operators__.add", "math.add"), _binary(operator.add)),
    "math.subtract": _binary(operator.sub),
    "math.multiply": _binary(operator.mul),
    **dict.fromkeys(("math.truediv", "math.divide", "realdiv"), _binary(operator.truediv)),
    "math.pow": _binary(operator.pow),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.negative": _unary(operator.neg),
    **{f"math.{name}": _unary(getattr(ops, name)) for name in ("square", "sqrt", "rsqrt", "abs", "exp", "log", "tanh")},
    **{f"math.{name}": _unary(getattr(ops, name)) for name in ("sigmoid", "softplus")},
    **{f"math.reduce_{name}": _reduce(getattr(ops, name)) for name in ("mean", "sum", "max", "min")},
    **{f"nn.{name}": _unary(getattr(ops, name)) for name in ("relu", "relu6", "elu", "selu")},
    **dict.fromkeys(
        ("nn.silu", "nn.swish"),
        lambda features, beta=1.0: ops.silu(features) if beta == 1 else features * ops.sigmoid(beta * features),
    ),
    "nn.gelu": lambda features, approximate=False, name=None: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2, name=None: ops.leaky_relu(features, alpha),
    "nn.softmax": lambda logits, axis=None, name=None: ops.softmax(logits, -1 if axis is None else axis),
    "nn.log_softmax": lambda logits, axis=None, name=None: ops.log_softmax(logits, -1 if axis is None else axis),
    "nn.bias_add": lambda value, bias, data_format=None, name=None: value + _array(bias),
    "concat": lambda values, axis, name=None: ops.concatenate(values, axis),
    "stack": lambda values, axis=0, name=None: ops.stack(values, axis),
    "reshape": lambda tensor, shape, name=None: ops.reshape(tensor, tuple(map(int, shape))),
    "transpose": lambda a, perm=None, conjugate=False, name=None: ops.transpose(a, perm),
    "expand_dims": lambda input, axis, name=None: ops.expand_dims(input, axis),
    "squeeze": lambda input, axis=None, name=None: ops.squeeze(input, axis),
    "clip_by_value": lambda t, clip_value_min, clip_value_max, name=None: ops.clip(t, clip_value_min, clip_value_max),
    "cast": lambda x, dtype, name=None: ops.cast(x, getattr(dtype, "name", dtype)),
    "identity": _unary(lambda x: x),
    "stop_gradient": _unary(ops.stop_gradient),
    "linalg.matmul": lambda a, b, name=None: ops.matmul(a, b),
    "pad": _pad,
    "image.resize": _resize,
    "__operators__.getitem": lambda tensor, slice_spec, var=None: tensor[slice_spec],
}
