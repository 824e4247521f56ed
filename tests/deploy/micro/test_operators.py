import re
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema

from tas_tf.deploy.micro.operators import SUPPORTED, resolver_methods
from tas_tf.errors import UserError


def test_all_are_operators_of_tflite():
    assert {*vars(schema.BuiltinOperator)} >= SUPPORTED


def test_the_runtime_has_kernels_for_all():
    runtime = pytest.importorskip("tflite_micro", reason="the package is there for Linux on x86-64 alone")
    (library,) = Path(runtime.__file__).parent.rglob("_runtime*.so")
    # In symbols, the length of a name stands before it.
    symbols = re.findall(rb"(\d+)(Register_[A-Z0-9_]+)", library.read_bytes())
    registered = {name[: int(length)].decode().removeprefix("Register_") for length, name in symbols}
    assert not SUPPORTED - registered


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("ADD_N", "AddAddN"),
        ("PADV2", "AddPadV2"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
        ("RELU6", "AddRelu6"),
    ],
)
def test_methods_are_spelt_as_in_the_header(operator, method):
    assert resolver_methods([operator]) == (method,)


def test_all_missing_operators_are_named():
    with pytest.raises(UserError, match="lacks: CUSTOM, ERF"):
        resolver_methods(["ERF", "ADD", "CUSTOM"])
