"""Times students of given shapes on LiteRT, each in turns with the unpruned network."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tas_tf.deploy.agreement import probes_for
from tas_tf.deploy.arrays import Arrays
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.latency import time_interleaved
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import serving_model, write_frozen
from tas_tf.deploy.settings import INTEGER_FORMATS
from tas_tf.deploy.tflite import write_tflite
from tas_tf.quiet import without_notes
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student

_GROUP = 7  # shapes that are timed together: memory holds only so many large networks
_GROUP_SECONDS = 3.0
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 1000  # for each half of a measurement
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Target:
    """What latency is measured for.

    Attributes:
        format: Format of the `.tflite` file.
        threads: Threads of the interpreter.
        preprocessing: Makes the layers that the file contains before the network.
    """

    format: str = "fp32"
    threads: int = 1
    preprocessing: Callable[[], Sequence[keras.layers.Layer]] = tuple


@dataclass(frozen=True)
class Timing:
    """A measured shape.

    Attributes:
        shape: The shape.
        ratio: Its latency, as a share of the unpruned network's.
        noise: By how much the two halves of the measurement differ, as a share.
        full_ms: Latency of the unpruned network in the same turns, in milliseconds.
        accelerated: Whether XNNPACK ran the unpruned network.
    """

    shape: Shape
    ratio: float
    noise: float
    full_ms: float
    accelerated: bool = True

    @property
    def highest(self) -> float:
        """The higher ratio of the two halves."""
        return self.ratio * (1 + self.noise / 2)


def runtime_version() -> str:
    """Name and version of the runtime that measures."""
    return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


def device_name() -> str:
    """Name of this machine's processor."""
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def write_student(space: SearchSpace, shape: Shape, path: Path, target: Target) -> Path:
    """Writes the `.tflite` file of a shape with random weights, which take the same time as trained ones.

    Raises:
        ExportError: The network can't be converted to the target's format.
    """
    layers = target.preprocessing()
    integer = target.format in INTEGER_FORMATS
    with without_notes(), tempfile.TemporaryDirectory() as scratch:
        served = serving_model(
            build_student(space, shape), preprocessing_layers=layers, input_dtype="float32" if integer else None
        )
        calibration: Arrays | None = None
        if integer:
            calibration = probes_for(served)
            if layers and isinstance(calibration, np.ndarray):
                calibration = np.random.default_rng(0).integers(0, 256, calibration.shape).astype(np.uint8)
        frozen = write_frozen(served, Path(scratch) / "frozen")
        try:
            return write_tflite(frozen, path, format=target.format, calibration=calibration)
        except ExportError as error:
            raise ExportError(
                f"`latency.file_format`={target.format} can't be timed, because no such file of {space.graph.network} "
                f"can be written: {error}"
            ) from error


def time_shapes(
    space: SearchSpace, shapes: Sequence[Shape], target: Target, *, full: Path | None = None
) -> Iterator[Timing]:
    """Times shapes in turns with the unpruned network, a few at a time.

    Args:
        space: Search space of the network.
        shapes: The shapes.
        target: What is measured.
        full: File of the unpruned network; by default it is written.

    Yields:
        The measurement of each shape, in order.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if full is None:
            full = write_student(space, Shape.full(space), Path(scratch) / "full.tflite", target)
        with without_notes():
            accelerated = TFLiteModel(full).is_accelerated
        for start in range(0, len(shapes), _GROUP):
            group = shapes[start : start + _GROUP]
            files = [
                write_student(space, shape, Path(scratch) / f"{number}.tflite", target)
                for number, shape in enumerate(group)
            ]
            first, second = time_files([full, *files], target.threads)
            for shape, *halves in zip(group, first[1:], second[1:], strict=True):
                ratios = [half / whole for half, whole in zip(halves, (first[0], second[0]), strict=True)]
                ratio = float(np.mean(ratios))
                noise = abs(ratios[0] - ratios[1]) / ratio
                yield Timing(shape, ratio, noise, float(np.mean([first[0], second[0]])), accelerated)


def time_files(files: Sequence[Path], threads: int) -> tuple[list[float], list[float]]:
    """Times `.tflite` files in turns, twice.

    Returns the 10th percentiles of both times, in milliseconds: other processes only ever make a call slower, and
    medians would tell how busy the machine was.
    """
    with without_notes():
        calls = {}
        for number, file in enumerate(files):
            model = TFLiteModel(file, num_threads=threads)
            calls[str(number)] = model.bind(model.example())
        probe = time_interleaved(calls, rounds=2, warmup=1)
        one_round = 2 * sum(each.median_ms for each in probe.values()) / 1000
        rounds = int(np.clip(_GROUP_SECONDS / 2 / one_round, _FEWEST_ROUNDS, _MOST_ROUNDS))
        halves = [time_interleaved(calls, rounds=rounds, warmup=1) for _ in range(2)]
    first, second = ([each.p10 for each in half.values()] for half in halves)
    return first, second
