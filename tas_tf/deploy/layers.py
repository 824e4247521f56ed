"""Size and time of each layer with weights in a `.tflite` file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from tas_tf.deploy.layer_names import name_operators
from tas_tf.deploy.lite_graph import LiteGraph

#: TFLite's operators with kernels, and XNNPACK's names for what computes them.
_KERNELS = {
    "CONV_2D": ("Convolution", "Fully Connected"),  # XNNPACK takes some 1x1 convolutions for matrix products
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "CONV_3D": (),
    "FULLY_CONNECTED": ("Fully Connected",),
}
_CALLS = tuple({*_KERNELS, *(name for names in _KERNELS.values() for name in names)})
#: What stands for everything without kernels.
REST = "everything else"


@dataclass(frozen=True)
class LayerFigures:
    """One layer in a file, or everything that has no kernel.

    Attributes:
        name: Name of the Keras layer, or `REST`. Where several have that name, with the names of the models around it,
            such as `block/conv`; empty where it isn't known.
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
    operators = list(_operators(LiteGraph.read(content)))
    names = name_operators([one.texts for one in operators], model)
    times = _times(operators, calls)
    rows: list[LayerFigures] = []
    counted: set[int] = set()
    for operator, name, time in zip(operators, names, times, strict=True):
        size = sum(size for number, size in operator.buffers.items() if number not in counted)
        counted |= operator.buffers.keys()  # of weights that several operators share, the first has the bytes
        rows.append(LayerFigures(name, operator.kind, size, time))
    rest = sum(time for _, time in calls) - sum(times) if calls and None not in times else None
    return (*rows, LayerFigures(REST, "", len(content) - sum(row.bytes for row in rows), rest))


def _operators(graph: LiteGraph) -> Iterator[_Operator]:
    """The operators with kernels."""
    # Weights in float16 pass an operator that makes them float32.
    made_from = {one.outputs[0]: one.inputs[0] for one in graph.operators if one.name == "DEQUANTIZE"}
    for one in graph.operators:
        if one.name in _KERNELS:
            read = [graph.tensors[made_from.get(number, number)] for number in one.inputs]
            weights = [tensor for tensor in read if tensor.is_constant]
            made = [graph.tensors[number] for number in one.outputs]
            texts = tuple(tensor.name for tensor in weights + made)
            yield _Operator(one.name, texts, {tensor.buffer: tensor.stored for tensor in weights})


def _times(operators: Sequence[_Operator], calls: Sequence[tuple[str, float]]) -> list[float | None]:
    """Times of operators with kernels, if the profile has the same ones in the same order."""
    kernels = [call for call in calls if call[0].startswith(_CALLS)]
    fits = len(kernels) == len(operators) and all(
        call.startswith((one.kind, *_KERNELS[one.kind])) for one, (call, _) in zip(operators, kernels, strict=True)
    )
    return [time for _, time in kernels] if fits else [None] * len(operators)
