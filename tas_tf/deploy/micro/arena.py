"""How much working memory LiteRT for Microcontrollers needs for a network, without running it.

The runtime places everything in one array, the arena, before the network runs. At its start are tensors that are only
needed for a while; those that aren't needed at the same time share memory. At its end is what the runtime keeps:
descriptions of tensors and operators, and a multiplier and a shift for each channel.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tas_tf.deploy.lite_graph import LiteGraph, LiteOperator

#: Each tensor begins at a multiple of this number of bytes.
ALIGNMENT = 16
#: Bytes that the runtime keeps on a computer with pointers of 64 bits: for each tensor, for each operator, for each
#: channel that an operator scales, and for itself. Measured; of operators and of itself, a little more.
_PER_TENSOR, _PER_OPERATOR, _PER_CHANNEL, _ITSELF = 24, 176, 8, 800
#: Operators that keep a multiplier and a shift for each channel of their weights, their second input.
_SCALE_CHANNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
#: Operators whose kernels keep a sum of 32 bits for each of their outputs while they run.
_SUM_UP = ("TRANSPOSE_CONV", "MEAN", "SUM")
_EXTREMES = ("REDUCE_MAX", "REDUCE_MIN")


@dataclass(frozen=True)
class Buffer:
    """Memory that is needed for a while.

    Attributes:
        size: Bytes, a multiple of `ALIGNMENT`.
        first: Step in which it is written: 0 for inputs, n for what the n-th operator writes.
        last: Last step in which it is read.
    """

    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed in the same step."""
        return self.first <= other.last and other.first <= self.last


def buffers_of(graph: LiteGraph) -> list[Buffer]:
    """Lists the buffers of a network in the runtime's order: its tensors, then what operators need while they run."""
    first = dict.fromkeys(graph.inputs.values(), 0)
    last: dict[int, int] = {}
    scratch: list[Buffer] = []
    for step, operator in enumerate(graph.operators, 1):
        first |= dict.fromkeys(operator.outputs, step)
        last |= dict.fromkeys((*operator.inputs, *operator.outputs), step)
        scratch += [Buffer(_aligned(size), step, step) for size in _scratch(graph, operator)]
    last |= dict.fromkeys(graph.outputs.values(), len(graph.operators))
    used = [number for number in sorted(first) if not graph.tensors[number].is_constant]
    tensors = [Buffer(_aligned(graph.tensors[number].num_bytes), first[number], last.get(number, 0)) for number in used]
    return [buffer for buffer in tensors if buffer.size] + scratch


def place(buffers: Sequence[Buffer]) -> list[int]:
    """Places buffers as the runtime's planner does: the largest first, each into the first gap that is large enough.

    Args:
        buffers: Buffers in the order in which the runtime lists them.

    Returns:
        Offset of each buffer, in bytes.

    Reference:
        `GreedyMemoryPlanner`, https://github.com/tensorflow/tflite-micro/tree/main/tensorflow/lite/micro/memory_planner

    Example:
        >>> place([Buffer(32, 0, 1), Buffer(64, 1, 2), Buffer(32, 2, 3)])
        [64, 0, 64]
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []  # by offset
    # Of equally large ones, the runtime begins with the last.
    for number in sorted(range(len(buffers)), key=lambda number: (-buffers[number].size, -number)):
        own, offset = buffers[number], 0
        for other in (one for one in placed if buffers[one].meets(own)):
            if offsets[other] - offset >= own.size:
                break
            offset = max(offset, offsets[other] + buffers[other].size)
        offsets[number] = offset
        placed.insert(bisect_right(placed, offset, key=offsets.__getitem__), number)
    return offsets


def planned_bytes(graph: LiteGraph) -> int:
    """Bytes at the start of the arena, for tensors and for what reference kernels need while they run."""
    buffers = buffers_of(graph)
    return max((offset + buffer.size for offset, buffer in zip(place(buffers), buffers, strict=True)), default=0)


def kept_bytes(graph: LiteGraph) -> int:
    """Estimates the bytes at the end of the arena, on a computer with pointers of 64 bits; controllers need less."""
    scaled = [graph.tensors[one.inputs[1]] for one in graph.operators if one.name in _SCALE_CHANNELS]
    channels = sum(len(weights.scales) for weights in scaled)
    counts = (len(graph.tensors), _PER_TENSOR), (len(graph.operators), _PER_OPERATOR), (channels, _PER_CHANNEL)
    return _aligned(_ITSELF + sum(count * each for count, each in counts))


def _scratch(graph: LiteGraph, operator: LiteOperator) -> Iterator[int]:
    """Bytes of the buffers that an operator needs while it runs, in the order in which its kernel asks for them."""
    if operator.name in _SUM_UP:
        yield 4 * graph.tensors[operator.outputs[0]].size
    elif operator.name in _EXTREMES:
        yield 4 * len(graph.tensors[operator.inputs[0]].shape)
        yield 4 * graph.tensors[operator.inputs[1]].size


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
