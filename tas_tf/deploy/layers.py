"""Size and time of each layer with weights in a `.tflite` file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
from ai_edge_litert import schema_py_generated as schema

#: TFLite's operators with kernels, and XNNPACK's names for what computes them.
_KERNELS = {
    "CONV_2D": ("Convolution", "Fully Connected"),  # XNNPACK takes some 1x1 convolutions for matrix products
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "CONV_3D": (),
    "FULLY_CONNECTED": ("Fully Connected",),
}
_CALLS = tuple({*_KERNELS, *(name for names in _KERNELS.values() for name in names)})
_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
#: What stands for everything without kernels.
REST = "everything else"


@dataclass(frozen=True)
class LayerFigures:
    """One layer in a file, or everything that has no kernel.

    Attributes:
        name: Name of the Keras layer, or `REST`.
        operator: TFLite's name of the operator; empty for the rest.
        bytes: Size of its weights in the file; of the rest, all other bytes of the file.
        milliseconds: Time for one image, from a profile of the operators; `None` where the profile doesn't tell.
    """

    name: str
    operator: str
    bytes: int
    milliseconds: float | None


@dataclass(frozen=True)
class _Operator:
    """An operator of a file.

    Attributes:
        kind: TFLite's name.
        texts: Names of its weights, then of what it makes.
        buffers: Sizes of its weights in bytes by number.
    """

    kind: str
    texts: tuple[str, ...]
    buffers: dict[int, int]


def layers_of_file(
    path: str | Path, model: keras.Model, calls: Sequence[tuple[str, float]] = ()
) -> tuple[LayerFigures, ...]:
    """Lists the layers with kernels in the order in which they run, and the rest last.

    Args:
        path: The file.
        model: The network that it was made from.
        calls: Type and milliseconds of the file's operators in the order in which they run, see `Profile`. Layers have
            times only if these are the file's kernels in order.
    """
    content = Path(path).read_bytes()
    operators = [one for one in _operators(content) if one.kind in _KERNELS]
    names = _named(operators, _layers_with_kernels(model))
    times = _times(operators, calls)
    rows: list[LayerFigures] = []
    counted: set[int] = set()
    for operator, name, time in zip(operators, names, times, strict=True):
        size = sum(size for number, size in operator.buffers.items() if number not in counted)
        counted |= operator.buffers.keys()  # of weights that several operators share, the first has the bytes
        rows.append(LayerFigures(name, operator.kind, size, time))
    rest = sum(time for _, time in calls) - sum(times) if calls and None not in times else None
    return (*rows, LayerFigures(REST, "", len(content) - sum(row.bytes for row in rows), rest))


def _operators(content: bytes) -> Iterator[_Operator]:
    """The operators of a file."""
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    numbers = range(graph.OperatorsLength())
    found = [graph.Operators(number) for number in numbers]
    codes = [model.OperatorCodes(one.OpcodeIndex()) for one in found]
    kinds = [_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM") for code in codes]
    # Weights in float16 pass an operator that makes them float32.
    made_from = {
        int(one.Outputs(0)): int(one.Inputs(0)) for one, kind in zip(found, kinds, strict=True) if kind == "DEQUANTIZE"
    }
    for one, kind in zip(found, kinds, strict=True):
        read = [int(one.Inputs(place)) for place in range(one.InputsLength())]
        read = [made_from.get(number, number) for number in read if number >= 0]
        weights = {graph.Tensors(number).Buffer(): number for number in read}
        sizes = {buffer: _size(model.Buffers(buffer)) for buffer in weights}
        made = [int(one.Outputs(place)) for place in range(one.OutputsLength())]
        named = [number for buffer, number in weights.items() if sizes[buffer]] + made
        texts = tuple(graph.Tensors(number).Name().decode(errors="replace") for number in named)
        yield _Operator(kind, texts, {buffer: size for buffer, size in sizes.items() if size})


def _size(buffer: schema.Buffer) -> int:
    """Bytes of a buffer, which lies behind the model in very large files."""
    return max(buffer.DataLength(), buffer.Size())


def _layers_with_kernels(model: keras.Model) -> list[str]:
    """Names of layers that multiply by weights, also inside other layers."""
    names: list[str] = []
    for layer in getattr(model, "layers", ()):
        inner = _layers_with_kernels(layer)
        has_kernel = not inner and any(len(weight.shape) > 1 for weight in layer.weights)
        names += [layer.name] if has_kernel else inner
    return names


def _named(operators: Sequence[_Operator], layers: Sequence[str]) -> list[str]:
    """Names of the layers that operators come from; empty where that isn't known."""
    known = set(layers)
    names = [next(filter(None, (_layer_in(text, known) for text in one.texts)), "") for one in operators]
    missing = [layer for layer in dict.fromkeys(layers) if layer not in names]
    # The last operator may be called after the output alone.
    return [name or missing[0] for name in names] if len(missing) == names.count("") == 1 else names


def _layer_in(text: str, known: Collection[str]) -> str:
    """The layer that a tensor's name mentions, as in `net/stem_relu_1/Relu;net/stem_1/convolution`."""
    for part in re.split("[/;]", text):
        for name in (part, re.sub(r"_\d+$", "", part), re.sub(r"^quant_|_\d+$", "", part)):
            if name in known:
                return name
    return ""


def _times(operators: Sequence[_Operator], calls: Sequence[tuple[str, float]]) -> list[float | None]:
    """Times of operators with kernels, if the profile has the same ones in the same order."""
    kernels = [call for call in calls if call[0].startswith(_CALLS)]
    fits = len(kernels) == len(operators) and all(
        call.startswith((one.kind, *_KERNELS[one.kind])) for one, (call, _) in zip(operators, kernels, strict=True)
    )
    return [time for _, time in kernels] if fits else [None] * len(operators)
