"""Measured latencies of a network's shapes: kept as JSON, and the cost model that they give."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.files import read_checked, read_json, write_checked, write_json
from tas_tf.latency.measure import Target, Timing, device_name, runtime_version, time_shapes
from tas_tf.latency.model import Error, LatencyModel, fit
from tas_tf.latency.shapes import shapes_to_measure
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

#: Shapes that are measured.
COUNT = 40
#: Version of the format of tables.
VERSION = 1
#: Part of the name of a runtime without fast kernels; latency/device/measure.py writes it too.
SLOW = "without XNNPACK"
#: Beginning of the name of a runtime that doesn't tell its version, TFLite's program for Android, as written by
#: latency/device/measure.py.
UNKNOWN_RUNTIME = "benchmark_model"
# Noise above which measurements are useless.
_TOO_NOISY = 0.2


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of shapes of one network.

    Attributes:
        network: Name of the network.
        digest: What the measurements depend on besides the device: network, units, stages, and preprocessing.
        format: Format of the files.
        threads: Threads of the interpreter.
        runtime: Name and version of the runtime, and `without XNNPACK` if it lacks these fast kernels.
        device: Name of the device.
        full_ms: Latency of the unpruned network in milliseconds.
        noise: By how much the two halves of a measurement differ, as a share: the median over all shapes.
        widths: Widths of all units, `[shapes, units]`.
        depths: Depths of all stages, `[shapes, stages]`.
        ratios: Latencies as shares of the unpruned network's, `[shapes]`.
    """

    network: str
    digest: str
    format: str
    threads: int
    runtime: str
    device: str
    full_ms: float
    noise: float
    widths: np.ndarray
    depths: np.ndarray
    ratios: np.ndarray

    @classmethod
    def measure(
        cls,
        space: SearchSpace,
        target: Target,
        *,
        count: int = COUNT,
        begun: BegunTable | None = None,
        on_timed: Callable[[int, int], None] | None = None,
    ) -> LatencyTable:
        """Measures shapes on this machine.

        Args:
            space: Search space of the network.
            target: What is measured.
            count: Number of shapes.
            begun: Keeps what was timed, and knows what an interrupted call timed; by default nothing is kept.
            on_timed: Called at the beginning and after each shape, with the numbers of shapes timed and of all.
        """
        shapes = shapes_to_measure(space, count)
        timings = [] if begun is None else begun.timings(shapes)
        if on_timed is not None:
            on_timed(len(timings), len(shapes))
        known = {one.shape.counts for one in timings}
        for timing in time_shapes(space, [shape for shape in shapes if shape.counts not in known], target):
            timings.append(timing)
            if begun is not None:
                begun.add(timing)
            if on_timed is not None:
                on_timed(len(timings), len(shapes))
        return cls(
            network=space.graph.network,
            digest=digest_of(space, target),
            format=target.format,
            threads=target.threads,
            runtime=runtime_version() + ("" if all(one.accelerated for one in timings) else f", {SLOW}"),
            device=device_name(),
            full_ms=float(np.median([one.full_ms for one in timings])),
            noise=float(np.median([one.noise for one in timings])),
            widths=np.array([[one.shape.widths[unit.name] for unit in space.units] for one in timings], np.int64),
            depths=np.array([[one.shape.depths[stage.name] for stage in space.stages] for one in timings], np.int64),
            ratios=np.array([one.ratio for one in timings]),
        )

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Reads a table.

        Raises:
            UserError: If the file is missing or isn't a table. The message names the wrong entry.
        """
        content = read_json(path)
        if not isinstance(content, Mapping) or content.get("version") != VERSION:
            raise UserError(f"{path} isn't a table of latencies: `version` must be {VERSION}.")
        try:
            arrays = {name: _numbers(content[name], name) for name in ("widths", "depths", "ratios")}
            table = cls(
                **{name: str(content[name]) for name in ("network", "digest", "format", "runtime", "device")},
                threads=int(content["threads"]),
                **{name: float(content[name]) for name in ("full_ms", "noise")},
                **arrays,
            )
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise UserError(f"{path} isn't a table of latencies: {error}.") from error
        count = len(table.ratios)
        numbers = (table.ratios, np.array([table.full_ms]))
        if not len(table.widths) == len(table.depths) == count > 0:
            raise UserError(f"{path}: expected widths, depths and ratios of the same shapes. Received: {count} ratios.")
        if not all(np.isfinite(each).all() and (each > 0).all() for each in numbers):
            raise UserError(f"{path}: latencies must be above 0.")
        if not table.noise >= 0:  # nor is it NaN
            raise UserError(f"{path}: `noise` must be at least 0. Received: {table.noise}.")
        return table

    def save(self, path: str | Path) -> None:
        """Writes the table."""
        arrays = {name: getattr(self, name).tolist() for name in ("widths", "depths", "ratios")}
        names = ("network", "digest", "format", "threads", "runtime", "device", "full_ms", "noise")
        write_json(path, {"version": VERSION, **{name: getattr(self, name) for name in names}, **arrays})

    def check(self, space: SearchSpace, target: Target) -> None:
        """Checks that the table is one of this network, and for this kind of file.

        Raises:
            UserError: If it isn't.
        """
        if (self.format, self.threads) != (target.format, target.threads):
            raise UserError(
                f"`latency.table`: it is for {self.format} with {self.threads} threads. Expected: "
                f"{target.format} with {target.threads}; see `file_format` and `threads`."
            )
        if self.digest != digest_of(space, target):
            raise UserError(
                f"`latency.table`: it is for other shapes, of {self.network}. Expected those of "
                f"{space.graph.network} with the same size of images, units, stages, and preprocessing inside."
            )
        if len(self.ratios) < 2 <= len(shapes_to_measure(space, 2)):
            raise UserError(
                f"`latency.table`: a single shape says nothing about others. Expected several, such as the {COUNT} "
                "that `probe` writes."
            )
        for choices, counts in ((space.units, self.widths), (space.stages, self.depths)):
            most = np.array([max(choice.candidates) for choice in choices], np.int64)
            if counts.shape[1] != len(most) or (counts < 1).any() or (counts > most).any():
                raise UserError("`latency.table`: it holds widths or depths that the network doesn't have.")

    def fitted(self, space: SearchSpace) -> tuple[LatencyModel, Error]:
        """The model of the latency, and its error by cross-validation."""
        return fit(space, self.widths, self.depths, self.ratios * self.full_ms / 1000)

    @property
    def is_of_another_runtime(self) -> bool:
        """Whether the runtime isn't the one that is installed here; false if its version is unknown."""
        known = not self.runtime.startswith(UNKNOWN_RUNTIME)
        return known and self.runtime.removesuffix(f", {SLOW}") != runtime_version()

    @property
    def is_noisy(self) -> bool:
        """Whether measurements differ so much that they say little."""
        return self.noise > _TOO_NOISY


def _numbers(value: Any, name: str) -> np.ndarray:
    """An array of a table.

    Raises:
        ValueError: It isn't one of numbers; counts must be whole.
    """
    array = np.array(value)
    dimensions, kinds = (1, "fiu") if name == "ratios" else (2, "iu")
    if array.size and (array.ndim != dimensions or array.dtype.kind not in kinds):
        raise ValueError(f"`{name}` must be numbers")
    return array


def digest_of(space: SearchSpace, target: Target) -> str:
    """Fingerprint of what measurements depend on besides the device, see `LatencyTable`."""
    parts = {
        "graph": space.graph.digest,
        "units": {unit.name: unit.width for unit in space.units},
        "stages": {stage.name: stage.blocks for stage in space.stages},
        "inside": [type(layer).__name__ for layer in target.preprocessing()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def cached_table(
    space: SearchSpace,
    target: Target,
    *,
    on_timed: Callable[[int, int], None] | None = None,
) -> tuple[LatencyTable, bool]:
    """Returns the table of a network on this machine, and whether it was measured now.

    Measured tables are kept in the user's cache folder, `$XDG_CACHE_HOME/tas_tf/latency` (by default
    `~/.cache/tas_tf/latency`), by network, candidates, format, threads, version of the runtime, and processor. A file
    that can't be read is measured again. A call that was interrupted is continued by the next one.
    """
    path = _cache_path(space, target)
    if path.exists():
        try:
            return LatencyTable.load(path), False
        except UserError:
            path.unlink()
    begun = BegunTable(path.with_name(f"{path.stem}_begun.json"))
    table = LatencyTable.measure(space, target, begun=begun, on_timed=on_timed)
    if not table.is_noisy:
        _ratios_path(path).unlink(missing_ok=True)
        table.save(path)
    begun.remove()
    return table, True


def forget_table(space: SearchSpace, target: Target) -> None:
    """Removes the table of a network from the cache, so that it is measured again."""
    _cache_path(space, target).unlink(missing_ok=True)


def shape_key(shape: Shape) -> str:
    """The widths and depths of a shape, as a key of JSON files."""
    return " ".join(map(str, shape.counts))


class BegunTable:
    """Shapes that were timed for a table which isn't finished: large networks take a quarter of an hour.

    Each was timed in turns with the unpruned network, so that its ratio holds when the others are timed later.

    Args:
        path: File that keeps them, with a checksum.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content = read_checked(path) if path.exists() else {}
        except UserError:  # damaged: timed again
            self._content = {}

    def timings(self, shapes: Sequence[Shape]) -> list[Timing]:
        """Measurements of those of the shapes that were timed."""
        keys = {shape_key(shape): shape for shape in shapes}
        try:
            return [Timing(shape, *self._content[key]) for key, shape in keys.items() if key in self._content]
        except TypeError:  # another version's file
            return []

    def add(self, timing: Timing) -> None:
        """Keeps a measurement."""
        figures = (timing.ratio, timing.noise, timing.full_ms, timing.accelerated)
        self._content[shape_key(timing.shape)] = figures
        write_checked(self._path, self._content)

    def remove(self) -> None:
        """Removes the file: the table is finished."""
        self._path.unlink(missing_ok=True)


class KeptRatios:
    """Latencies of single shapes on this machine, as shares of the unpruned network's, kept beside its table.

    An interrupted run finds the shapes again that it had found, and needn't measure them twice.
    """

    def __init__(self, space: SearchSpace, target: Target) -> None:
        self._path = _ratios_path(_cache_path(space, target))

    def get(self, key: str) -> float | None:
        """The ratio of a shape, if it is known."""
        return self._read().get(key)

    def add(self, key: str, ratio: float) -> None:
        """Keeps the ratio of a shape."""
        write_json(self._path, {**self._read(), key: ratio})

    def _read(self) -> dict[str, float]:
        try:
            found = read_json(self._path) if self._path.exists() else {}
        except UserError:  # damaged: measured again
            found = {}
        return found if isinstance(found, dict) else {}


def _cache_path(space: SearchSpace, target: Target) -> Path:
    key: dict[str, Any] = {
        "digest": digest_of(space, target),
        "candidates": [choice.candidates for choice in space.choices],
        "format": target.format,
        "threads": target.threads,
        "runtime": runtime_version(),
        "device": device_name(),
        "count": COUNT,
        "version": VERSION,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder() / f"{name}.json"


def _ratios_path(table: Path) -> Path:
    return table.with_name(f"{table.stem}_shapes.json")


def cache_folder() -> Path:
    """Folder of the measured tables."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tas_tf" / "latency"
