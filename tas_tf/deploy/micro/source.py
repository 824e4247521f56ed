"""C++ text of a network for LiteRT for Microcontrollers: its content as an array, and a header that describes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from tas_tf.deploy.micro.report import MicroReport, Port
from tas_tf.version import __version__

_PER_LINE = 16


def identifier(name: str) -> str:
    """A name for C, made of any text.

    >>> identifier("student-int8"), identifier("8bit")
    ('student_int8', 'model_8bit')
    """
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    return word if word[:1].isalpha() else f"model_{word}"


def array_source(flatbuffer: bytes, name: str, header: str) -> str:
    """The file that holds the network's content.

    Args:
        flatbuffer: The content.
        name: Beginning of all names.
        header: Name of the header's file.
    """
    rows = (flatbuffer[start : start + _PER_LINE] for start in range(0, len(flatbuffer), _PER_LINE))
    lines = "".join(f"    {' '.join(f'0x{byte:02x},' for byte in row)}\n" for row in rows)
    return (
        f'// Made by tas_tf {__version__}.\n#include "{header}"\n\n'
        f"alignas(16) const unsigned char {name}_model[] = {{\n{lines}}};\n"
    )


def header_source(report: MicroReport, labels: Sequence[str] = ()) -> str:
    """The header: length, arena, operators, and how inputs and outputs are scaled.

    Args:
        report: What the network needs.
        labels: Names of the classes, in the order of the output.
    """
    name, guard = report.name, f"{report.name.upper()}_H_"
    adds = " &&\n         ".join(f"resolver.{method}() == 0" for method in report.operators)
    return f"""// Made by tas_tf {__version__}.
#ifndef {guard}
#define {guard}

#include <cstddef>
#include <cstdint>

// For `tflite::GetModel`. It lies in flash.
extern const unsigned char {name}_model[];
constexpr std::size_t {name}_model_size = {report.flash};

// Bytes of the arena, of which {report.planned} are for tensors; {_how_found(report)}.
// On the board, `arena_used_bytes()` of the interpreter says how much is used. Optimised kernels may need more.
constexpr std::size_t {name}_arena_size = {report.arena};

// For `tflite::MicroMutableOpResolver<{name}_num_operators>`.
constexpr unsigned int {name}_num_operators = {len(report.operators)};
template <typename Resolver>
bool {name}_add_operators(Resolver& resolver) {{
  return {adds};
}}

// Real numbers are scale * (integer - zero_point). A scale of 0 means that integers are the numbers themselves.
{_ports(name, "input", report.inputs)}
{_ports(name, "output", report.outputs)}
{_classes(labels)}
#endif  // {guard}
"""


def _how_found(report: MicroReport) -> str:
    if report.is_measured:
        return "measured with reference kernels and pointers of 64 bits"
    return "the rest is estimated for reference kernels and pointers of 64 bits"


def _ports(name: str, kind: str, ports: Sequence[Port]) -> str:
    return "".join(f"\n{line}" for number, port in enumerate(ports) for line in _port(name, kind, number, port, ports))


def _port(name: str, kind: str, number: int, port: Port, ports: Sequence[Port]) -> Iterable[str]:
    start = f"{name}_{kind}{f'_{number}' if len(ports) > 1 else ''}"
    yield f"// {kind.capitalize()} {number}, {json.dumps(port.name)}, {port.type}."
    yield f"constexpr int {start}_shape[] = {{{', '.join(map(str, port.shape))}}};"
    yield f"constexpr float {start}_scale = {_float(port.scale)};"
    yield f"constexpr int {start}_zero_point = {port.zero_point};"


def _float(value: float) -> str:
    """A number for C, with all digits of a float.

    >>> _float(0.5), _float(1e-10), _float(2.0)
    ('0.5f', '1e-10f', '2.0f')
    """
    text = f"{value:.9g}"
    return f"{text}f" if any(sign in text for sign in ".e") else f"{text}.0f"


def _classes(labels: Sequence[str]) -> str:
    """Comments with the names of the classes; JSON's form, which ends in a quote, can't continue a comment."""
    lines = "".join(f"//   {number}: {json.dumps(label)}\n" for number, label in enumerate(labels))
    return f"\n// Classes:\n{lines}" if labels else ""
