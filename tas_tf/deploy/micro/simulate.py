"""Compares LiteRT for Microcontrollers with LiteRT on this computer, and measures the arena."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.lite_graph import LiteGraph, LiteTensor
from tas_tf.extras import missing_modules
from tas_tf.files import read_arrays, write_arrays, write_bytes

_RUNNER = Path(__file__).with_name("tflm_runner.py")
_EXAMPLES = 4
#: Steps of the output by which kernels may differ: some round halves in another way.
_MOST_STEPS = 1
_SECONDS = 600


@dataclass(frozen=True)
class Usage:
    """How much of an arena is used.

    Attributes:
        planned: Bytes at its start, shared by tensors that aren't needed at the same time.
        kept: Bytes at its end.
    """

    planned: int
    kept: int


class NotMeasuredError(Exception):
    """The network didn't run; the message says why, or what would measure it."""


def simulate(flatbuffer: bytes, graph: LiteGraph, *, arena: int) -> Usage:
    """Runs a network with an arena on random integers, and compares its outputs with LiteRT's.

    Args:
        flatbuffer: The network.
        graph: Its tensors and operators.
        arena: Bytes of the arena.

    Returns:
        How much of the arena is used.

    Raises:
        NotMeasuredError: The package tflite-micro is missing or can't be imported, or the run takes more than ten
            minutes.
        ExportError: The runtime can't run the network in that arena, or computes something else than LiteRT.
    """
    if missing_modules("micro"):
        raise NotMeasuredError("the extra `micro` measures it")
    inputs = random_inputs(graph)
    outputs, usage = run(flatbuffer, inputs, num_outputs=len(graph.outputs), arena=arena)
    for name, got, wanted in zip(graph.outputs, outputs, run_reference(flatbuffer, graph, inputs), strict=True):
        steps = int(np.abs(got.astype(np.int64) - wanted).max())
        if steps > _MOST_STEPS:
            raise ExportError(
                f"LiteRT for Microcontrollers computes something else than LiteRT: `{name}` differs by {steps} steps "
                f"on random inputs; at most {_MOST_STEPS} is allowed. Nothing was written."
            )
    return usage


def random_inputs(graph: LiteGraph) -> list[np.ndarray]:
    """The same few examples each time, `[examples, 1, ...]` for each input in the order of the file."""
    rng = np.random.default_rng(0)
    return [_examples(graph.tensors[number], rng) for number in graph.inputs.values()]


def run(
    flatbuffer: bytes, inputs: Sequence[np.ndarray], *, num_outputs: int, arena: int
) -> tuple[list[np.ndarray], Usage]:
    """Runs examples on LiteRT for Microcontrollers.

    Args:
        flatbuffer: The network.
        inputs: An array `[examples, 1, ...]` for each input, in the order of the file.
        num_outputs: Number of the network's outputs.
        arena: Bytes of the arena.

    Returns:
        An array `[examples, 1, ...]` for each output, and how much of the arena is used.

    Raises:
        NotMeasuredError: The package tflite-micro can't be imported, or the run takes more than ten minutes.
        ExportError: The runtime can't run the network in that arena.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model, given, found = (Path(scratch) / name for name in ("model.tflite", "inputs.npz", "outputs.npz"))
        write_bytes(model, flatbuffer)
        write_arrays(given, inputs)
        # -P: modules in the script's folder would hide others of the same names.
        command = [sys.executable, "-P", *map(str, (_RUNNER, model, arena, num_outputs, given, found))]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotMeasuredError(f"its simulation takes more than {_SECONDS // 60} minutes") from error
        used = dict(re.findall(r"Arena allocation (head|tail) (\d+) bytes", done.stderr))
        if done.returncode or len(used) < 2:
            said = _reason(done.stderr) or f"status {done.returncode}"
            if said.startswith(("ImportError", "ModuleNotFoundError")):
                raise NotMeasuredError(f"the extra `micro` can't be imported: {said}")
            raise ExportError(
                f"LiteRT for Microcontrollers can't run the network in an arena of {arena:,} bytes: {said}."
            )
        return read_arrays(found), Usage(int(used["head"]), int(used["tail"]))


def _reason(stderr: str) -> str:
    r"""What ended a run: the runtime says it first, Python last; empty if nothing is said.

    >>> _reason("Failed to resize buffer.\nTraceback ...")
    'Failed to resize buffer'
    >>> _reason("Traceback (most recent call last):\n  ...\nValueError: wrong\n")
    'ValueError: wrong'
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or [""]
    return lines[-1 if lines[0].startswith("Traceback") else 0].rstrip(".")


def _examples(tensor: LiteTensor, rng: np.random.Generator) -> np.ndarray:
    """Random inputs, `[examples, 1, ...]`: any integers that stand for numbers, 0 or 1 where they are numbers."""
    if tensor.type == "BOOL":
        return rng.integers(0, 2, (_EXAMPLES, *tensor.shape)).astype(bool)
    limits = np.iinfo(tensor.type.lower())
    lowest, highest = (limits.min, limits.max) if tensor.scales else (0, 1)
    return rng.integers(lowest, highest, (_EXAMPLES, *tensor.shape), limits.dtype, endpoint=True)


def run_reference(flatbuffer: bytes, graph: LiteGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What LiteRT's reference kernels compute, `[examples, 1, ...]` for each output: fast ones round in other ways."""
    interpreter = Interpreter(
        model_content=flatbuffer, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    found: list[list[np.ndarray]] = [[] for _ in graph.outputs]
    for example in zip(*inputs, strict=True):
        for number, array in zip(graph.inputs.values(), example, strict=True):
            interpreter.set_tensor(number, array)
        interpreter.invoke()
        for own, number in zip(found, graph.outputs.values(), strict=True):
            own.append(interpreter.get_tensor(number).copy())
    return [np.stack(own) for own in found]
