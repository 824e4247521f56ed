"""What each functional operation of Keras does to channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tas_tf.graph.kinds import ACTIVATIONS, Kind, are_positions, kind_of_relu
from tas_tf.graph.nodes import Node, Ref

#: Operations on one tensor that act on each number alone.
_ELEMENTWISE: dict[str, Kind] = {
    **{known.op: known.kind for known in ACTIVATIONS if known.op},
    **dict.fromkeys(
        [
            *("Abs", "Absolute", "Fabs", "Negative", "Square", "Sign", "Expm1", "Log1p", "Erf", "Erfinv"),
            *("Sin", "Sinh", "Tan", "Arcsin", "Arcsinh", "Arctan", "Arctanh", "Deg2rad", "Rad2deg"),
            *("Ceil", "Floor", "Trunc", "Round", "NanToNum", "Real", "Conj", "Conjugate", "Copy", "ZerosLike"),
            *("Array", "Cast", "ConvertToTensor", "SaturateCast", "StopGradient"),
        ],
        Kind.KEEPS_ZEROS,
    ),
    **dict.fromkeys(
        ["Cos", "Cosh", "Arccos", "Exp2", "Erfc", "I0", "Heaviside", "OnesLike", "FullLike", "EmptyLike", "Threshold"],
        Kind.SHIFTS_ZEROS,
    ),
    **dict.fromkeys(["Sqrt", "Cbrt", "Rsqrt", "Reciprocal", "Log", "Log2", "Log10", "Sinc"], Kind.FROM_ONES),
}
#: Operations on two tensors, or on a tensor and a constant, that act on each number alone.
_COMBINING: dict[str, Kind] = {
    "Add": Kind.ADD,
    "Multiply": Kind.MULTIPLY,
    **dict.fromkeys(["Subtract", "Maximum", "Minimum", "Fmax", "Fmin"], Kind.COMBINE),
    **dict.fromkeys(
        [
            *("Divide", "TrueDivide", "DivideNoNan", "FloorDivide", "Mod", "Fmod"),
            *("Power", "Hypot", "Arctan2", "Logaddexp", "Logaddexp2"),
        ],
        Kind.FROM_ONES,
    ),
}
_QUOTIENTS = ("Divide", "TrueDivide", "DivideNoNan")


class _Reduction(NamedTuple):
    """A reduction over axes.

    Attributes:
        of_positions: Its kind if it reduces positions alone.
        of_channels: Its kind if it reduces channels, alone or together with positions.
    """

    of_positions: Kind
    of_channels: Kind = Kind.OPAQUE


_REDUCTIONS = {
    **dict.fromkeys(["Mean", "Sum", "Max", "Amax", "Min", "Amin", "Prod"], _Reduction(Kind.POOL, Kind.REDUCE)),
    **dict.fromkeys(["Var", "Median", "Ptp"], _Reduction(Kind.POOL)),
    **dict.fromkeys(["Nanmean", "Nansum", "Nanmax", "Nanmin", "Nanprod", "Nanvar"], _Reduction(Kind.POOL)),
    "Logsumexp": _Reduction(Kind.SHIFTS_ZEROS, Kind.REDUCE),
    "Norm": _Reduction(Kind.FROM_ONES, Kind.REDUCE),
}
#: What inactive channels must hold so that a reduction over channels leaves them out; 0 for other reductions.
_NEUTRAL = {
    **dict.fromkeys(["Max", "Amax", "Logsumexp"], -np.inf),
    **dict.fromkeys(["Min", "Amin"], np.inf),
    "Prod": 1.0,
}
#: Operations along an axis that treat each line alone, by what they do to zeros.
_ALONG_AXES = {
    **dict.fromkeys(["Cumsum", "Cumprod", "Nancumsum", "Nancumprod", "Diff", "Trapezoid"], Kind.KEEPS_ZEROS),
    **dict.fromkeys(["Flip", "Repeat", "Roll", "Sort"], Kind.KEEPS_ZEROS),
    **dict.fromkeys(["Softmax", "LogSoftmax"], Kind.SHIFTS_ZEROS),
}
#: Operations on images, if channels are last.
_ON_IMAGES = {
    **dict.fromkeys(["AveragePool", "MaxPool", "AdaptiveAveragePool", "AdaptiveMaxPool"], Kind.POOL),
    **dict.fromkeys(["Resize", "CropImages", "PadImages"], Kind.KEEPS_ZEROS),
}


def kind_of_operation(node: Node, shapes: tuple[tuple[int | None, ...], ...]) -> Kind:
    """Tells how a call of an operation treats channels.

    Args:
        node: The call.
        shapes: Static shapes of its input tensors, batch first.
    """
    name, config = node.class_name, node.config
    if name == "ReLU":
        return kind_of_relu(config)
    # A constant with several numbers may differ between channels.
    if not shapes or _holds_array((node.args, node.kwargs)):
        return Kind.OPAQUE
    rank = len(shapes[0])
    if name in _REDUCTIONS:
        return _kind_of_reduction(name, config, rank)
    if name in _ALONG_AXES and are_positions(config.get("axis"), rank):
        return _ALONG_AXES[name]
    if name in _ON_IMAGES:
        return _ON_IMAGES[name] if config.get("data_format") == "channels_last" else Kind.OPAQUE
    if name in _COMBINING:
        return _COMBINING[name] if len(shapes) > 1 else _kind_with_constant(node)
    if name == "Clip":
        limits = (config["x_min"], config["x_max"])
        keeps = all(isinstance(limit, (int, float)) for limit in limits) and limits[0] <= 0 <= limits[1]
        return Kind.KEEPS_ZEROS if keeps else Kind.SHIFTS_ZEROS
    if name in _BY_ARGUMENTS:
        return _BY_ARGUMENTS[name](node, rank)
    return _ELEMENTWISE.get(name, Kind.OPAQUE)


def neutral_value(node: Node) -> float:
    """What inactive channels must hold so that a reduction over channels leaves them out."""
    return _NEUTRAL.get(node.class_name, 0.0)


def counts_channels(node: Node) -> bool:
    """Whether a reduction over channels divides by their number."""
    return node.kind is Kind.REDUCE and node.class_name == "Mean"


def selected_channels(node: Node, channels: int) -> tuple[int, int]:
    """First and last (exclusive) of the consecutive channels that a `SELECT` node takes.

    Args:
        node: A split, or an index, along the channel axis.
        channels: Number of channels that it reads.
    """
    if node.class_name == "GetItem":
        start, stop, _ = _key(node, len(node.shape))[-1].indices(channels)
        return start, stop
    points, part = split_points(node, channels), node.output or 0
    return points[part], points[part + 1]


def split_points(node: Node, channels: int) -> tuple[int, ...]:
    """Where a split along the channel axis cuts, from 0 to the number of channels."""
    sections = node.config["indices_or_sections"]
    if isinstance(sections, int):
        return tuple(round(channels * part / sections) for part in range(sections + 1))
    return (0, *(min(int(point), channels) for point in sections), channels)


def padded_channels(node: Node) -> tuple[int, int]:
    """Zero channels that a `PAD` node adds before and after those that it reads."""
    before, after = _pad_widths(node, len(node.shape))[-1]
    return before, after


def _kind_with_constant(node: Node) -> Kind:
    """The kind of arithmetic with one number: `x * 2.` keeps zeros, `x + 3.` doesn't."""
    name, tensor_first = node.class_name, bool(node.args) and isinstance(node.args[0], Ref)
    if not any(isinstance(value, (int, float)) for value in (*node.args, *node.kwargs.values())):
        return _COMBINING[name]  # a tensor with itself
    if name in _QUOTIENTS:
        return Kind.KEEPS_ZEROS if tensor_first else Kind.FROM_ONES
    if name == "Power":
        exponent = node.args[1] if tensor_first and len(node.args) > 1 else node.kwargs.get("x2")
        return Kind.KEEPS_ZEROS if isinstance(exponent, (int, float)) and exponent >= 1 else Kind.FROM_ONES
    kind = _COMBINING[name]
    return {Kind.MULTIPLY: Kind.KEEPS_ZEROS, Kind.FROM_ONES: Kind.FROM_ONES}.get(kind, Kind.SHIFTS_ZEROS)


def _kind_of_reduction(name: str, config: Mapping[str, Any], rank: int) -> Kind:
    axes = _axes(config.get("axis"), rank)
    if name == "Norm" and not (config.get("ord") in (None, "fro") or (len(axes) == 1 and config["ord"] in (1, 2))):
        return Kind.OPAQUE  # norms of matrices
    if 0 in axes or (config.get("initial") is not None):
        return Kind.OPAQUE
    return _REDUCTIONS[name].of_channels if rank - 1 in axes else _REDUCTIONS[name].of_positions


def _kind_of_index(node: Node, rank: int) -> Kind:
    key = _key(node, rank)
    if key is None or key[0] != slice(None):
        return Kind.OPAQUE
    if not all(isinstance(part, (int, slice)) for part in key) or not isinstance(key[-1], slice):
        return Kind.OPAQUE
    if key[-1] == slice(None):
        return Kind.KEEPS_ZEROS
    return Kind.SELECT if key[-1].step in (None, 1) else Kind.OPAQUE


def _key(node: Node, rank: int) -> tuple | None:
    """The index of a `GetItem` with one part for each axis; None if it adds axes or holds tensors."""
    key = node.args[1] if len(node.args) > 1 else node.kwargs.get("key")
    key = key if isinstance(key, tuple | list) else (key,)
    if any(part is None or isinstance(part, (Ref, bool)) for part in key):
        return None
    given = sum(part is not Ellipsis for part in key)
    # The shape of the result lacks the axes with a number, and is only known after the call.
    rank += 0 if node.shape == () else sum(isinstance(part, int) for part in key)
    place = next((place for place, part in enumerate(key) if part is Ellipsis), len(key))
    whole = [slice(None)] * (rank - given)
    return (*key[:place], *whole, *key[place + 1 :])


def _kind_of_split(node: Node, rank: int) -> Kind:
    axis = node.config["axis"] % rank
    return Kind.SELECT if axis == rank - 1 else _kept_if(axis > 0)


def _kind_of_unstack(node: Node, rank: int) -> Kind:
    return _kept_if(0 < node.config["axis"] % rank < rank - 1)


def _kind_of_pad(node: Node, rank: int) -> Kind:
    widths = _pad_widths(node, rank)
    constant = node.config["mode"] == "constant"
    value = (node.args[1] if len(node.args) > 1 else node.kwargs.get("constant_values")) or 0
    if any(widths[0]) or not isinstance(value, (int, float)):
        return Kind.OPAQUE
    if any(widths[-1]):
        return Kind.PAD if constant and value == 0 else Kind.OPAQUE
    return Kind.SHIFTS_ZEROS if constant and value else Kind.KEEPS_ZEROS


def _pad_widths(node: Node, rank: int) -> list[tuple[int, int]]:
    widths = np.broadcast_to(np.asarray(node.config["pad_width"], int), (rank, 2))
    return [tuple(pair) for pair in widths.tolist()]


def _kind_of_stack(node: Node, rank: int) -> Kind:
    return Kind.CONCAT if 0 < node.config["axis"] % (rank + 1) < rank else Kind.OPAQUE


def _kind_of_transpose(node: Node, rank: int) -> Kind:
    axes = node.config["axes"]
    return _kept_if(axes is not None and (axes[0], axes[-1] % rank) == (0, rank - 1))


def _kind_of_moved_axes(node: Node, rank: int) -> Kind:
    keys = ("source", "destination") if node.class_name == "Moveaxis" else ("axis1", "axis2")
    return _kept_if(all(are_positions(node.config[key], rank) for key in keys))


def _kind_of_new_axis(node: Node, rank: int) -> Kind:
    return _kept_if(are_positions(node.config["axis"], rank + 1))


def _kind_of_squeeze(node: Node, rank: int) -> Kind:
    return _kept_if(are_positions(node.config["axis"], rank))


def _kind_of_tile(node: Node, rank: int) -> Kind:
    repeats = node.config["repeats"]
    repeats = repeats if isinstance(repeats, (list, tuple)) else (repeats,)
    return _kept_if(len(repeats) <= rank and repeats[-1] == 1 and (len(repeats) < rank or repeats[0] == 1))


def _kind_of_normalize(node: Node, rank: int) -> Kind:
    if node.config["order"] not in (1, 2):
        return Kind.OPAQUE
    if are_positions(node.config["axis"], rank):
        return Kind.FROM_ONES
    return Kind.OPAQUE if 0 in _axes(node.config["axis"], rank) else Kind.UNIT_NORM


#: Operations whose kind depends on their arguments.
_BY_ARGUMENTS = {
    "Concatenate": lambda node, rank: Kind.CONCAT,
    "Reshape": lambda node, rank: Kind.RESHAPE,
    "GetItem": _kind_of_index,
    "Split": _kind_of_split,
    "ArraySplit": _kind_of_split,
    "Unstack": _kind_of_unstack,
    "Pad": _kind_of_pad,
    "Stack": _kind_of_stack,
    "Transpose": _kind_of_transpose,
    "Moveaxis": _kind_of_moved_axes,
    "Swapaxes": _kind_of_moved_axes,
    "ExpandDims": _kind_of_new_axis,
    "Squeeze": _kind_of_squeeze,
    "Tile": _kind_of_tile,
    "Normalize": _kind_of_normalize,
}


def _kept_if(condition: bool) -> Kind:
    return Kind.KEEPS_ZEROS if condition else Kind.OPAQUE


def _axes(axis: Any, rank: int) -> set[int]:
    """The axes of an `axis` argument from 0; all for None."""
    if axis is None:
        return set(range(rank))
    return {one % rank for one in (axis if isinstance(axis, (list, tuple)) else (axis,))}


def _holds_array(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_holds_array, value))
    return bool(getattr(value, "shape", ()))
