"""Which operators of a `.tflite` file take the time."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tas_tf.errors import UserError

_WARMUP = 10
_PROFILER = Path(__file__).with_name("litert_profiler.py")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatorTime:
    """What all operators of one type take together, for one image.

    Attributes:
        name: The type, as LiteRT calls it: what XNNPACK runs under XNNPACK's name, such as
            `Convolution (NHWC, QC8) IGEMM`, the rest under TFLite's, such as `SOFTMAX`. XNNPACK runs 1x1 convolutions
            of stride 1 as `Fully Connected`.
        count: Operators of this type.
        milliseconds: Their time.
        share: Part of the time of all operators, 0 to 1.
    """

    name: str
    count: int
    milliseconds: float
    share: float


class _NoProfileError(Exception):
    """Why LiteRT gave no profile."""


def profile_operators(
    path: str | Path, *, threads: int = 1, rounds: int = 50, timeout: float = 60
) -> tuple[OperatorTime, ...] | None:
    """Times each operator of a classifier on this machine's CPU, by LiteRT's own profiler.

    The model runs as it does for users, XNNPACK included, on one random image. Times are means over the middle half
    of the rounds by their length, which leaves interruptions out. The profiler cuts each operator's time down to whole
    microseconds, so the many tiny ones of a small network come out too cheap.
    LiteRT offers its profiler in C alone; it is called in a process of its own, so that no other version of it can
    take this one down.

    Args:
        path: A `.tflite` file of one input and one output; run with its own batch size where that isn't free.
        threads: Threads of XNNPACK.
        rounds: Images to run after the warm-up; fewer where they'd take more than half of `timeout`.
        timeout: Seconds after which it is given up.

    Returns:
        The types of operator, the most expensive first; None if this LiteRT gives no profile: the reason is logged.

    Raises:
        UserError: If the file isn't such a model, or a number isn't positive.
    """
    if threads < 1 or rounds < 1 or timeout <= 0:
        raise UserError(
            "`threads` and `rounds` must be at least 1 and `timeout` above 0. "
            f"Received: threads={threads}, rounds={rounds}, timeout={timeout}."
        )
    image = _random_image(path)
    request = {
        "model": str(path),
        "shape": image.shape,
        "threads": threads,
        "rounds": rounds,
        "warmup": _WARMUP,
        "seconds": timeout / 2,
    }
    try:
        return _summarise(_run_profiler(request, image.tobytes(), timeout=timeout))
    except _NoProfileError as error:
        _logger.info("No operator profile of %s: %s", path, error)
        return None


def _random_image(path: str | Path) -> np.ndarray:
    """Returns one input `[1, height, width, channels]` of the type that the model takes."""
    try:
        interpreter = Interpreter(model_path=str(path))
    except ValueError as error:
        raise UserError(f"`path` must be a TFLite model. Received: {str(path)!r} ({error}).") from error
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            "`path` must be a model of one input and one output. "
            f"Received: {str(path)!r} of {len(inputs)} and {len(outputs)}."
        )
    shape = [max(int(size), 1) for size in inputs[0]["shape_signature"]]
    rng = np.random.default_rng(0)
    if np.issubdtype(inputs[0]["dtype"], np.integer):
        limits = np.iinfo(inputs[0]["dtype"])
        return rng.integers(limits.min, limits.max, shape, inputs[0]["dtype"], endpoint=True)
    return rng.standard_normal(shape).astype(inputs[0]["dtype"])


def _run_profiler(request: Mapping[str, object], image: bytes, *, timeout: float) -> list[dict[str, tuple[int, int]]]:
    """Returns what `tas_tf.deploy.litert_profiler.profile` does, from a process of its own."""
    arguments = json.dumps({"library": str(_find_library()), **request})
    # Isolated: beside the script lie modules that would hide others of the same names.
    command = [sys.executable, "-I", str(_PROFILER), arguments]
    try:
        finished = subprocess.run(command, input=image, capture_output=True, timeout=timeout, check=True)
        return json.loads(finished.stdout)
    except subprocess.TimeoutExpired as error:
        raise _NoProfileError(f"LiteRT's profiler took more than {timeout} seconds.") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise _NoProfileError(f"LiteRT's profiler ended with status {error.returncode} ({last}).") from error
    except (OSError, ValueError) as error:
        raise _NoProfileError(f"LiteRT's profiler could not be run: {error}.") from error


def _find_library() -> Path:
    """Returns LiteRT's shared library, whose suffix depends on the system."""
    package = importlib.util.find_spec("ai_edge_litert")
    for folder in package.submodule_search_locations if package else ():
        for library in sorted(Path(folder).glob("libLiteRt.*")):
            return library
    raise _NoProfileError("The package ai_edge_litert has no libLiteRt.")


def _summarise(rounds: Sequence[Mapping[str, tuple[int, int]]]) -> tuple[OperatorTime, ...]:
    def total(run: Mapping[str, tuple[int, int]]) -> int:
        return sum(microseconds for _, microseconds in run.values())

    quarter = len(rounds) // 4
    typical = sorted(rounds, key=total)[quarter : len(rounds) - quarter]
    whole = sum(map(total, typical))
    if not whole:
        raise _NoProfileError("LiteRT's profiler names no operator that takes as much as a microsecond.")
    counts = {name: count for run in typical for name, (count, _) in run.items()}
    operators = []
    for name, count in counts.items():
        microseconds = sum(run[name][1] for run in typical if name in run)
        operators.append(OperatorTime(name, count, microseconds / len(typical) / 1000, microseconds / whole))
    return tuple(sorted(operators, key=lambda operator: operator.milliseconds, reverse=True))
