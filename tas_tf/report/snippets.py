"""Lines to copy that run a file of a report: in Python, and in Kotlin on Android."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

#: Smallest and largest integers by type.
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
#: Kotlin's arrays and LiteRT's names by type.
_BUFFERS = {"float32": ("FloatArray", "Float"), "int8": ("ByteArray", "Int8"), "uint8": ("ByteArray", "Int8")}


@dataclass(frozen=True)
class Snippets:
    """How to run one file.

    Attributes:
        format: Name of the format.
        path: Path of the file.
        facts: Shapes, types and quantisation, as labels and texts.
        python: Lines for Python.
        kotlin: Lines for Android.
        has_c_array: Whether there is a C++ array for microcontrollers, which `facts` describe.
    """

    format: str
    path: str
    facts: tuple[tuple[str, str], ...]
    python: str
    kotlin: str
    has_c_array: bool = False


def make_snippets(report: Mapping[str, Any]) -> list[Snippets]:
    """Lines for each TFLite file of the student that the report describes; empty for reports of earlier versions."""
    files = report.get("student", {}).get("tflite", {})
    found = []
    for format, one in (report.get("deploy") or {}).items():
        micro = files.get(format, {}).get("micro")
        facts = (*_facts(one), *(_micro_facts(one["path"], micro) if micro else ()))
        found.append(Snippets(format, one["path"], facts, python_lines(one), kotlin_lines(one), bool(micro)))
    return found


def python_lines(file: Mapping[str, Any]) -> str:
    """A Python program that runs a file on an image of zeros and prints the answer.

    Args:
        file: The file's `path` and what `describe_file` returns.
    """
    inputs, outputs = file["inputs"], file["outputs"]
    lines = ["# pip install ai-edge-litert numpy"]
    lines += ["import zipfile", ""] if file.get("num_labels") else []
    lines += ["import numpy as np", "from ai_edge_litert.interpreter import Interpreter", ""]
    lines += [f"path = {_quoted(file['path'])}", "model = Interpreter(path)", "model.allocate_tensors()", ""]
    for number, one in enumerate(inputs):
        lines += [*_given(file, one, alone=len(inputs) == 1), f"given = model.get_input_details()[{number}]"]
        if one["scale"]:
            low, high = _LIMITS[one["dtype"]]
            lines += ['scale, zero_point = given["quantization"]']
            lines += [f"x = np.clip(np.round(x / scale + zero_point), {low}, {high})"]
        lines += ['model.set_tensor(given["index"], x.astype(given["dtype"])[np.newaxis])', ""]
    lines += ["model.invoke()", ""]
    for number, one in enumerate(outputs):
        lines += [f"made = model.get_output_details()[{number}]", 'y = model.get_tensor(made["index"])[0]']
        if one["scale"]:
            lines += ['scale, zero_point = made["quantization"]', "y = scale * (y.astype(np.float32) - zero_point)"]
        lines += [f"print({_quoted(one['name'])}, y)"] if len(outputs) > 1 else []
    return "\n".join([*lines, *(_answer(file) if len(outputs) == 1 else [])]) + "\n"


def _quoted(text: str) -> str:
    r"""A text as Python writes it, in double quotes; JSON's pairs of surrogates would be two characters.

    >>> print(_quoted('a "b"'))
    "a \"b\""
    """
    return json.dumps(text, ensure_ascii=False)


def _given(file: Mapping[str, Any], tensor: Mapping[str, Any], *, alone: bool) -> list[str]:
    """Lines that make one input `x`."""
    shape = tuple(tensor["shape"][1:])
    if not alone or "pixel_scale" not in file or len(shape) != 3:
        what = "your data" if alone else f"your data for {tensor['name']}"
        return [f"x = np.zeros({shape}, np.float32)  # {what}"]
    order = ", blue first" if file["channel_order"] == "bgr" else ""
    scale, offset = file["pixel_scale"], file["pixel_offset"]
    lines = [f"x = np.zeros({shape}, np.float32)  # your image, from 0 to 255{order}"]
    plain = set(scale) == {1.0} and set(offset) == {0.0}
    return lines if plain else [*lines, f"x = x * {_numbers(scale)} + {_numbers(offset)}"]


def _answer(file: Mapping[str, Any]) -> list[str]:
    """Lines that print what the only output `y` says."""
    task, per_pixel = file.get("task"), len(file["outputs"][0]["shape"]) > 2
    if per_pixel or not file.get("num_labels"):
        return [f"print(y{'.argmax(-1)' if task == 'classification' else ''})"]
    least = 0.5 if file["output"] == "probabilities" else 0
    answers = {
        "classification": "labels[y.argmax()]",
        "binary": f"labels[int(y[0] > {least})]",
        "multilabel": f"[label for label, one in zip(labels, y) if one > {least}]",
    }
    return [
        "with zipfile.ZipFile(path) as inside:",
        '    labels = inside.read("labels.txt").decode().splitlines()',
        f"print({answers.get(task, 'dict(zip(labels, y.tolist()))')})",
    ]


def kotlin_lines(file: Mapping[str, Any]) -> str:
    """Lines for an Android app with LiteRT's `CompiledModel`; the file lies among the app's assets.

    Args:
        file: The file's `path` and what `describe_file` returns.
    """
    name = PurePath(file["path"]).name
    lines = [
        "// build.gradle: implementation 'com.google.ai.edge.litert:litert:2.3.0'",
        f'val model = CompiledModel.create(context.assets, "{name}", CompiledModel.Options(Accelerator.CPU))',
        "val inputs = model.createInputBuffers()",
        "val outputs = model.createOutputBuffers()",
    ]
    for number, one in enumerate(file["inputs"]):
        kind, size = _BUFFERS.get(one["dtype"], _BUFFERS["float32"]), math.prod(one["shape"])
        shape = "x".join(map(str, one["shape"]))
        lines.append(f"val given{number} = {kind[0]}({size})  // {shape}{_quantised(one)}")
        lines.append(f"inputs[{number}].write{kind[1]}(given{number})")
    lines.append("model.run(inputs, outputs)")
    for number, one in enumerate(file["outputs"]):
        kind, shape = _BUFFERS.get(one["dtype"], _BUFFERS["float32"]), "x".join(map(str, one["shape"]))
        lines.append(f"val made{number} = outputs[{number}].read{kind[1]}()  // {shape}{_quantised(one)}")
    return "\n".join(lines) + "\n"


def _quantised(tensor: Mapping[str, Any]) -> str:
    if not tensor["scale"]:
        return ""
    return f", number = {tensor['scale']:.6g} * (integer - {tensor['zero_point']})"


def _facts(file: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = []
    for what, tensors in (("input", file["inputs"]), ("output", file["outputs"])):
        for one in tensors:
            shape = "x".join(map(str, one["shape"]))
            label = what if len(tensors) == 1 else f"{what} {one['name']}"
            facts.append((label, f"{one['dtype']} {shape}{_quantised(one)}"))
    if "pixel_scale" in file:
        order = "blue first, " if file["channel_order"] == "bgr" else ""
        scale, offset = (", ".join(f"{each:.6g}" for each in file[key]) for key in ("pixel_scale", "pixel_offset"))
        facts.append(("from pixels 0 to 255", f"{order}times {scale}, plus {offset}"))
    if file.get("num_labels"):
        facts.append(("labels", f"{file['num_labels']}, in the file's labels.txt"))
    return tuple(facts)


def _micro_facts(path: str, micro: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Files and memory of the C++ array beside a file."""
    header, source = (str(PurePath(path).with_suffix(suffix)) for suffix in (".h", ".cc"))
    how = "measured" if micro["is_measured"] else "partly estimated"
    return (
        ("C++ header", header),
        ("C++ array", source),
        ("flash", f"{micro['flash']:,} bytes"),
        ("arena", f"{micro['arena']:,} bytes, {how}"),
    )


def _numbers(values: Sequence[float]) -> str:
    """One number, or an array of one for each channel."""
    return f"np.float32({values[0] if len(set(values)) == 1 else list(values)!r})"
