"""Times the operators of a `.tflite` file."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tas_tf.errors import UserError

_WARMUP, _ROUNDS = 10, 50
# The profiler's batch grows until its operators can be timed, up to this many images or bytes of tensors.
_MOST_IMAGES = 4096
_MOST_BYTES = 2**27
_PROFILER = Path(__file__).with_name("litert_profiler.py")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatorTime:
    """Time of all operators of one type together, for one image.

    Attributes:
        name: LiteRT's name of the type. Operators that XNNPACK runs have XNNPACK's name, such as
            `Convolution (NHWC, QC8) IGEMM`; the others have TFLite's, such as `SOFTMAX`. XNNPACK runs 1x1 convolutions
            with stride 1 as `Fully Connected`.
        count: Number of operators of this type.
        milliseconds: Milliseconds that they take together.
        share: Share of the time of all operators, 0 to 1.
    """

    name: str
    count: int
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Times of a network's operators, for one image.

    Attributes:
        operators: Types of operator, the most expensive first.
        calls: Type and milliseconds of each operator, in the order in which they run; empty if that order changes.
    """

    operators: tuple[OperatorTime, ...]
    calls: tuple[tuple[str, float], ...]


class _NoProfileError(Exception):
    """LiteRT gave no profile; the message says why."""


def profile_file(path: str | Path, *, threads: int = 1, timeout: float = 60) -> Profile | None:
    """Times each operator of a network on this machine's CPU, with LiteRT's own profiler.

    The model runs as it does for users, with XNNPACK. Times are means over the middle half of the rounds, sorted by
    duration, which excludes interruptions. The profiler truncates each operator's time to whole microseconds.
    Therefore a round runs a batch of random images, just large enough to lose only about one percent, and its times
    are divided by the batch size. A file with a fixed batch size keeps it: if both batch and network are small, the
    times come out too short.
    LiteRT offers its profiler only in C. It runs in a separate process, so that a crash in another version of LiteRT
    can't end this one.

    Args:
        path: A `.tflite` file with one input.
        threads: Threads of XNNPACK.
        timeout: Seconds after which profiling is abandoned. Rounds end after half of them.

    Returns:
        The times; `None` if LiteRT gives no profile. The reason is then logged.

    Raises:
        UserError: If the file isn't such a model, or a number isn't positive.
    """
    if threads < 1 or timeout <= 0:
        raise UserError(
            f"`threads` must be at least 1 and `timeout` above 0. Received: threads={threads}, timeout={timeout}."
        )
    images, most_copies = _random_input(path)
    request = {
        "model": str(path),
        "shape": images.shape,
        "most_copies": most_copies,
        "threads": threads,
        "rounds": _ROUNDS,
        "warmup": _WARMUP,
        "seconds": timeout / 2,
    }
    try:
        found = _run_profiler(request, images.tobytes(), timeout=timeout)
        return _summarise(found["rounds"], num_images=found["copies"] * len(images))
    except _NoProfileError as error:
        _logger.info("No operator profile of %s: %s", path, error)
        return None


def _random_input(path: str | Path) -> tuple[np.ndarray, int]:
    """Returns the smallest input that a model takes, and the largest number of copies of it in a batch.

    The input has the shape `[batch, height, width, channels]` and the model's input type.
    """
    try:
        interpreter = Interpreter(model_path=str(path))
    except ValueError as error:
        raise UserError(f"`path` must be a TFLite model. Received: {str(path)!r} ({error}).") from error
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        raise UserError(f"`path` must be a model with one input. Received: {str(path)!r} with {len(inputs)}.")
    signature, dtype = inputs[0]["shape_signature"], inputs[0]["dtype"]
    copies = _most_copies(interpreter) if signature[0] < 0 else 1
    shape = [max(int(size), 1) for size in signature]
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True), copies
    return rng.standard_normal(shape).astype(dtype), copies


def _most_copies(interpreter: Interpreter) -> int:
    # The tensors include weights, which don't grow with the batch, so this errs on the safe side.
    tensors = interpreter.get_tensor_details()
    an_image = sum(math.prod(map(int, tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize for tensor in tensors)
    return max(1, min(_MOST_IMAGES, _MOST_BYTES // max(an_image, 1)))


def _run_profiler(request: Mapping[str, object], images: bytes, *, timeout: float) -> dict:
    """Runs `tas_tf.deploy.litert_profiler.profile` in a separate process and returns its result."""
    arguments = json.dumps({"library": str(_find_library()), **request})
    # Isolated: modules in the script's folder would hide others of the same names.
    command = [sys.executable, "-I", str(_PROFILER), arguments]
    try:
        finished = subprocess.run(command, input=images, capture_output=True, timeout=timeout, check=True)
        return json.loads(finished.stdout)
    except subprocess.TimeoutExpired as error:
        raise _NoProfileError(f"LiteRT's profiler took more than {timeout} seconds.") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise _NoProfileError(f"LiteRT's profiler ended with status {error.returncode} ({last}).") from error
    except (OSError, ValueError) as error:
        raise _NoProfileError(f"LiteRT's profiler could not be run: {error}.") from error


def _find_library() -> Path:
    """Returns the path of LiteRT's shared library, whose suffix depends on the system."""
    package = importlib.util.find_spec("ai_edge_litert")
    for folder in package.submodule_search_locations if package else ():
        for library in sorted(Path(folder).glob("libLiteRt.*")):
            return library
    raise _NoProfileError("The package ai_edge_litert has no libLiteRt.")


def _summarise(rounds: Sequence[Sequence[tuple[str, int]]], *, num_images: int) -> Profile:
    """Averages over the middle half of the rounds, each with `num_images` images."""

    def total(run: Sequence[tuple[str, int]]) -> int:
        return sum(microseconds for _, microseconds in run)

    quarter = len(rounds) // 4
    typical = sorted(rounds, key=total)[quarter : len(rounds) - quarter]
    whole = sum(map(total, typical))
    if not whole:
        raise _NoProfileError("LiteRT's profiler lists no operator that takes at least a microsecond.")
    unit = len(typical) * num_images * 1000  # microseconds of all rounds in a millisecond of an image
    operators = []
    for name, count in Counter(name for name, _ in typical[-1]).items():
        microseconds = sum(each for run in typical for kind, each in run if kind == name)
        operators.append(OperatorTime(name, count, microseconds / unit, microseconds / whole))
    calls: tuple[tuple[str, float], ...] = ()
    if len({tuple(name for name, _ in run) for run in typical}) == 1:
        times = zip(*([microseconds for _, microseconds in run] for run in typical), strict=True)
        calls = tuple((name, sum(each) / unit) for (name, _), each in zip(typical[0], times, strict=True))
    return Profile(tuple(sorted(operators, key=lambda operator: operator.milliseconds, reverse=True)), calls)
