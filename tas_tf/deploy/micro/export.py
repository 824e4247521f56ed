"""Writes an int8 network as C++ for LiteRT for Microcontrollers."""

from __future__ import annotations

from pathlib import Path

from tas_tf.deploy.lite_graph import LiteGraph, LiteTensor
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import read_labels, without_files
from tas_tf.deploy.micro.arena import kept_bytes, planned_bytes
from tas_tf.deploy.micro.operators import resolver_methods
from tas_tf.deploy.micro.report import MicroReport, Port
from tas_tf.deploy.micro.simulate import NotMeasuredError, Usage, simulate
from tas_tf.deploy.micro.source import array_source, header_source, identifier
from tas_tf.errors import UserError
from tas_tf.files import write_bytes

_SUFFIXES = (".cc", ".cpp")
#: The schema's types that aren't real numbers, text or the like.
_INTEGERS = ("INT8", "UINT8", "BOOL", "INT16", "INT32", "INT64", "INT4")
#: Room for the network while it is measured: an estimate may be too low.
_ROOM = 2**16


def export_c_array(source: str | Path, path: str | Path) -> MicroReport:
    """Writes an int8 `.tflite` file as a C++ array, with a header that a program for a microcontroller includes.

    The header has the array's length, the size of the arena, a function that registers the operators, and shapes,
    scales and zero points of inputs and outputs. The array has no metadata, which would take flash; names of classes
    are comments in the header.

    If the package tflite-micro is installed (extra `micro`; Linux on x86-64), the network runs on LiteRT for
    Microcontrollers first: on random inputs, outputs must be within one step of those of LiteRT's reference kernels,
    and the arena is measured. Otherwise, or if this takes more than ten minutes, the arena is computed from the
    tensors' sizes as the runtime does, and what it keeps besides is estimated.

    Args:
        source: A file that `export_tflite` wrote in the format `int8` or `qat_int8`.
        path: The file to write, `.cc` or `.cpp`. The header lies beside it and ends in `.h`.

    Returns:
        What was written, and what the network needs: bytes of flash and of the arena, operators, inputs and outputs.

    Raises:
        UserError: If `source` isn't such a file, or has operators that the runtime lacks.
        ExportError: If the runtime can't run the network, or computes something else.
        OSError: If the disk is full.

    Example:
        ```python
        print(tas_tf.export_c_array("student.tflite", "student.cc"))
        ```
    """
    source, path = Path(source), Path(path)
    if path.suffix not in _SUFFIXES:
        raise UserError(f"`path` must end in {' or '.join(_SUFFIXES)}. Received: {path}.")
    TFLiteModel(source)  # rejects files that aren't TFLite's
    flatbuffer = without_files(source.read_bytes())
    graph = LiteGraph.read(flatbuffer)
    if not graph.is_plain:
        raise UserError(f"`source` must be a network without branches, loops and variables. Received: {source}.")
    operators = resolver_methods(one.name for one in graph.operators)
    _check_integers(source, graph)
    computed = Usage(planned_bytes(graph), kept_bytes(graph))
    try:
        used, why = simulate(flatbuffer, graph, arena=computed.planned + computed.kept + _ROOM), ""
    except NotMeasuredError as error:
        used, why = computed, str(error)
    report = MicroReport(
        name=identifier(path.stem),
        files=(path.with_suffix(".h"), path),
        flash=len(flatbuffer),
        planned=used.planned,
        kept=used.kept,
        not_measured=why,
        operators=operators,
        inputs=tuple(_port(name, graph.tensors[number]) for name, number in graph.inputs.items()),
        outputs=tuple(_port(name, graph.tensors[number]) for name, number in graph.outputs.items()),
    )
    header, array = report.files
    write_bytes(header, header_source(report, read_labels(source)).encode())
    write_bytes(array, array_source(flatbuffer, report.name, header.name).encode())
    return report


def _check_integers(source: Path, graph: LiteGraph) -> None:
    """Rejects networks that compute with real numbers: few controllers have the means to do so fast."""
    used = {number for one in graph.operators for number in (*one.inputs, *one.outputs)}
    used |= {*graph.inputs.values(), *graph.outputs.values()}
    others = sorted({graph.tensors[number].type for number in used} - {*_INTEGERS})
    if others:
        raise UserError(
            f"`source` must be an int8 file, in the format int8 or qat_int8, whose tensors are all integers. Received: "
            f"{source}, which has {', '.join(others)}."
        )


def _port(name: str, tensor: LiteTensor) -> Port:
    return Port(name, tensor.shape, tensor.type.lower(), tensor.scales[0] if tensor.scales else 0.0, tensor.zero_point)
