"""What a budget in time needs: the cost model of a network's latency, and measurements of single shapes."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras

from tas_tf.cost.cost_model import CostModel
from tas_tf.errors import UserError
from tas_tf.latency.measure import Target, runtime_version, time_shapes, write_student
from tas_tf.latency.model import SECOND, Error
from tas_tf.latency.settings import LatencySettings
from tas_tf.latency.table import SLOW, KeptRatios, LatencyTable, cache_folder, cached_table, forget_table, shape_key
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.file_size import FileSize
from tas_tf.student.meter import Meter

# What a file takes when it is measured again differs by up to a percent.
_MARGIN = 0.01
# Mean error of predictions from which a table isn't kept, and shapes from which that means something.
_POOR, _ENOUGH = 0.1, 20
# A measurement whose halves differ by more is made again, a few times.
_CALM, _TRIES = 0.02, 3


def _say_nothing(text: str) -> None:
    """Ignores a line of text."""


@dataclass(frozen=True)
class LatencyMeter:
    """Measures the latency of shapes in femtoseconds, and remembers it.

    Shapes are timed in turns with the unpruned network on this machine. With a table of another device, latencies are
    predictions, to which their mean error is added.

    Attributes:
        space: Search space of the network.
        target: What is measured.
        table_from: File of a table that was measured on another device; by default this machine is measured.
        say: Called with a line of text before and after what takes time.
    """

    space: SearchSpace
    target: Target
    table_from: str | None = None
    say: Callable[[str], None] = _say_nothing
    _known: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    kind = "latency"

    @property
    def measures(self) -> bool:
        """Whether shapes are measured on this machine, rather than predicted for another device."""
        return self.table_from is None

    @cached_property
    def table(self) -> LatencyTable:
        """The measurements that the cost model is fitted to.

        Raises:
            UserError: The table is one of another network, or the measurements are too noisy to tell anything.
        """
        if self.table_from is not None:
            table = LatencyTable.load(self.table_from)
            table.check(self.space, self.target)
        else:
            table = self._measured_here()
        if table.is_noisy:
            raise UserError(
                f"`budget` in time can't be kept on a device this busy: measurements of {table.device} that were "
                f"repeated at once differ by {table.noise:.0%}. Expected: a device that does nothing else."
            )
        if SLOW in table.runtime:
            self.say(
                f"warning: {table.device} ran this network {SLOW}, whose kernels are several times faster. Latencies "
                "on devices that have it will differ."
            )
        if table.is_of_another_runtime:
            self.say(
                f"warning: {self.table_from} was measured with {table.runtime}, but {runtime_version()} is installed "
                "here. Kernels differ between versions: deploy on the one that was measured."
            )
        return table

    def _measured_here(self) -> LatencyTable:
        said: list[int] = []

        def on_timed(done: int, all_shapes: int) -> None:
            if not said:
                earlier = f", of which {done} have been timed" if done else ""
                self.say(
                    f"latency: {all_shapes} shapes are timed on this machine first{earlier}; later runs use the result."
                )
            elif done == all_shapes or done - said[-1] >= all_shapes // 4:
                self.say(f"latency: {done} of {all_shapes} shapes timed ({self.target.format}).")
            else:
                return
            said.append(done)

        table, is_new = cached_table(self.space, self.target, on_timed=on_timed)
        earlier = "" if is_new else f", timed earlier; to time it again, remove {cache_folder()}"
        self.say(
            f"latency: {table.full_ms:.3f} ms for the unpruned network ({table.format}, threads: "
            f"{table.threads}{earlier})."
        )
        return table

    @cached_property
    def _fitted(self) -> tuple[CostModel, Error]:
        model, error = self.table.fitted(self.space)
        full = round(self.table.full_ms / 1000 * SECOND)
        if len(self.table.ratios) > 1:  # a single shape is its own model
            self.say(
                f"latency: predictions are off by {error.mean:.1%} on average, by {error.worst:.1%} at most; "
                f"measurements that were repeated at once differ by {self.table.noise:.1%}."
            )
        if error.mean > _POOR and len(self.table.ratios) >= _ENOUGH:
            self.say(
                "warning: that is much. Was the device busy while it was measured? Shapes are measured as well, but a "
                "better table gives better ones."
            )
            if self.table_from is None:
                forget_table(self.space, self.target)
        return model.cost(self.space, full=full), error

    def cost_model(self) -> CostModel:
        """The cost model, fitted to measured shapes."""
        return self._fitted[0]

    @property
    def error(self) -> Error:
        """How far predictions are from measurements, by cross-validation."""
        return self._fitted[1]

    def figures(self) -> dict[str, Any]:
        """What the latency refers to, how good predictions are, and all shapes measured so far, for reports.

        `latency_predicted` tells that no shape was measured.
        """
        full = self.cost_model().full
        return {
            "latency_format": self.target.format,
            "latency_threads": self.target.threads,
            "latency_predicted": not self.measures,
            "latency_device": self.table.device,
            "latency_runtime": self.table.runtime,
            "latency_full_ms": self.table.full_ms,
            "latency_noise": self.table.noise,
            "latency_error": {"mean": self.error.mean, "worst": self.error.worst},
            "latency_timed": [
                {"predicted": predicted / full, "measured": measured / full}
                for predicted, measured in (self._known.values() if self.measures else ())
            ],
        }

    def __call__(self, shape: Shape) -> int:
        """Latency of a shape in femtoseconds: measured, or predicted for another device; with a margin."""
        cost = self.cost_model()
        key = shape_key(shape)
        if key not in self._known:
            if self.measures:
                ratio = self._kept.get(key) or self._timed(shape)
            else:
                ratio = cost(shape) * (1 + self.error.mean) / cost.full
            self._known[key] = (cost(shape), round(ratio * cost.full))
        return self._known[key][1]

    def _timed(self, shape: Shape) -> float:
        """Times a shape, again if it is noisy, and keeps the ratio."""
        calmest = None
        for _ in range(_TRIES):
            (timing,) = time_shapes(self.space, [shape], self.target, full=self._full_file)
            if calmest is None or timing.noise < calmest.noise:
                calmest = timing
            if calmest.noise <= _CALM:
                break
        if calmest.noise > _CALM:
            self.say(
                f"warning: the device is busy: measurements of a shape that were repeated at once differ by "
                f"{calmest.noise:.1%}, even the calmest of {_TRIES}. The higher one counts."
            )
        ratio = calmest.highest * (1 + _MARGIN)
        self._kept.add(shape_key(shape), ratio)
        return ratio

    @cached_property
    def _kept(self) -> KeptRatios:
        return KeptRatios(self.space, self.target)

    @property
    def _full_file(self) -> Path:
        """File of the unpruned network, which every shape is timed in turns with."""
        path = self._scratch / "full.tflite"
        return path if path.exists() else write_student(self.space, Shape.full(self.space), path, self.target)

    @cached_property
    def _scratch(self) -> Path:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def meter_of(
    kind: str,
    space: SearchSpace,
    settings: LatencySettings,
    *,
    measure_file: Callable[[keras.Model], int],
    preprocessing: Callable[[], Sequence[keras.layers.Layer]] = tuple,
    say: Callable[[str], None] = _say_nothing,
) -> Meter | None:
    """Makes what measures a kind of cost; `None` if a formula gives it.

    Args:
        kind: Kind of cost, see `tas_tf.cost.cost_model.COST_KINDS`.
        space: Search space of the network.
        settings: What a budget in time refers to.
        measure_file: Returns the bytes of a network's file.
        preprocessing: Makes the layers that files contain before the network.
        say: Called with lines of text.
    """
    if kind == "bytes":
        return FileSize(space, measure_file)
    if kind == "latency":
        return LatencyMeter(space, Target(settings.file_format, settings.threads, preprocessing), settings.table, say)
    return None
