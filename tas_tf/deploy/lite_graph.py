"""The tensors and operators of a `.tflite` file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

#: Bytes of a number of each type.
_BYTES = {"INT4": 0.5, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "FLOAT16": 2, "INT32": 4, "FLOAT32": 4, "INT64": 8}


def _names(numbers: type) -> dict[int, str]:
    return {number: name for name, number in vars(numbers).items() if isinstance(number, int)}


_TYPES, _OPERATORS = _names(schema.TensorType), _names(schema.BuiltinOperator)


@dataclass(frozen=True)
class LiteTensor:
    """A tensor of the file.

    Attributes:
        name: Name of the tensor.
        shape: Its shape for one image.
        type: TFLite's name of its type, such as `INT8`.
        buffer: Number of the buffer that holds its content. Tensors may share one.
        stored: Bytes of its content in the file; 0 if it is computed.
        scales: Scales of its integers: none, one, or one for each channel.
        zero_point: The integer that stands for 0, of the first channel.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    buffer: int
    stored: int
    scales: tuple[float, ...] = ()
    zero_point: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its content, which is then read where it lies."""
        return self.stored > 0

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of its content."""
        return math.ceil(self.size * _BYTES[self.type])


@dataclass(frozen=True)
class LiteOperator:
    """An operator of the file.

    Attributes:
        name: TFLite's name of its type, such as `CONV_2D`; for one of the user's own or of a later TFLite, `CUSTOM`.
        inputs: Numbers of the tensors that it reads; those left out are missing.
        outputs: Numbers of the tensors that it writes.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class LiteGraph:
    """A file's tensors, and its operators in the order in which they run.

    Attributes:
        tensors: All tensors, by number.
        operators: All operators.
        inputs: Numbers of the inputs, in the file's order, by name.
        outputs: Numbers of the outputs likewise.
        is_plain: Whether there are no branches, loops and variables. Of branches and loops, nothing is listed.
    """

    tensors: tuple[LiteTensor, ...]
    operators: tuple[LiteOperator, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    is_plain: bool

    @classmethod
    def read(cls, flatbuffer: bytes) -> LiteGraph:
        """Reads a file that LiteRT accepts."""
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))
        graph = model.subgraphs[0]
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        signature = (model.signatureDefs or [None])[0]
        return cls(
            tensors=tuple(_read_tensor(tensor, model.buffers) for tensor in graph.tensors),
            operators=tuple(
                LiteOperator(
                    _OPERATORS.get(codes[one.opcodeIndex], "CUSTOM"), _numbers(one.inputs), _numbers(one.outputs)
                )
                for one in graph.operators
            ),
            inputs=_named(graph, graph.inputs, signature and signature.inputs),
            outputs=_named(graph, graph.outputs, signature and signature.outputs),
            is_plain=len(model.subgraphs) == 1 and not any(tensor.isVariable for tensor in graph.tensors),
        )


def _read_tensor(tensor: Any, buffers: Any) -> LiteTensor:
    quantised, buffer = tensor.quantization, buffers[tensor.buffer]
    scales = () if quantised is None or quantised.scale is None else tuple(map(float, quantised.scale))
    return LiteTensor(
        name=tensor.name.decode(errors="replace"),
        shape=_numbers(tensor.shape),
        type=_TYPES[tensor.type],
        buffer=int(tensor.buffer),
        # Of very large files, content lies behind the model.
        stored=max(0 if buffer.data is None else len(buffer.data), buffer.size),
        scales=scales,
        zero_point=int(quantised.zeroPoint[0]) if scales and quantised.zeroPoint is not None else 0,
    )


def _numbers(values: np.ndarray | None) -> tuple[int, ...]:
    """Numbers of a vector, without negative ones, which stand for what is left out."""
    return () if values is None else tuple(int(value) for value in values if value >= 0)


def _named(graph: Any, numbers: np.ndarray, maps: Any) -> dict[str, int]:
    """Names of inputs or outputs: those of the signature, if the file has one."""
    names = {one.tensorIndex: one.name.decode(errors="replace") for one in maps or ()}
    return {
        names.get(int(number), graph.tensors[number].name.decode(errors="replace")): int(number) for number in numbers
    }
