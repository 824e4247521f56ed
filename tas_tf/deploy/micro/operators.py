"""Which operators LiteRT for Microcontrollers has, and how a program registers them."""

from __future__ import annotations

from collections.abc import Iterable

from tas_tf.errors import UserError

#: Where the list comes from; it names the methods that register an operator.
RESOLVER = "https://github.com/tensorflow/tflite-micro/blob/main/tensorflow/lite/micro/micro_mutable_op_resolver.h"

_NAMES = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
#: TFLite's operators that the runtime has kernels for, as of October 2026.
SUPPORTED = frozenset(_NAMES.split())
#: Names of methods that aren't spelt like the operator's.
_SPELLINGS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}


def resolver_methods(operators: Iterable[str]) -> tuple[str, ...]:
    """Methods of a `MicroMutableOpResolver` that register operators, each once, in alphabetical order.

    Args:
        operators: TFLite's names of their types.

    Raises:
        UserError: The runtime lacks one of them.

    Example:
        >>> resolver_methods(["CONV_2D", "SOFTMAX", "CONV_2D"])
        ('AddConv2D', 'AddSoftmax')
    """
    wanted = dict.fromkeys(operators)
    missing = sorted(name for name in wanted if name not in SUPPORTED)
    if missing:
        raise UserError(
            f"`source` has operators that LiteRT for Microcontrollers lacks: {', '.join(missing)}. Replace the layers "
            f"that they come from. What it has: {RESOLVER}."
        )
    return tuple(sorted(f"Add{_spelt(name)}" for name in wanted))


def _spelt(name: str) -> str:
    return _SPELLINGS.get(name) or "".join(part if part[0].isdigit() else part.capitalize() for part in name.split("_"))
