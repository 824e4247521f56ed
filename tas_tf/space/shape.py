"""Shapes: how many filters each unit keeps and how many blocks each stage keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tas_tf.errors import UserError
from tas_tf.space.channels import Segment
from tas_tf.space.space import SearchSpace

_VERSION = 1
_KEYS = {"version", "network", "graph_digest", "widths", "depths"}


@dataclass(frozen=True)
class Shape:
    """Widths of all units, including those of dropped blocks, and depths of all stages.

    Attributes:
        network: Name of the network that the shape is for.
        graph_digest: Fingerprint of the network's structure. If it is empty, only the name is compared.
        widths: Filters that each unit keeps, from 1 to its full width, or to twice that if `graph_digest` is empty.
        depths: Blocks that each stage keeps, from 1 to all.

    Example:
        >>> from dataclasses import replace
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet14", image_size=8))
        >>> full = tas_tf.Shape.full(space)
        >>> shape = replace(full, depths={**full.depths, "stage_3": 1})
        >>> tas_tf.build_student(space, full).count_params(), tas_tf.build_student(space, shape).count_params()
        (175994, 101754)
    """

    network: str
    graph_digest: str
    widths: Mapping[str, int] = field(repr=False)
    depths: Mapping[str, int]

    @classmethod
    def full(cls, space: SearchSpace) -> Shape:
        """The shape of the unpruned network."""
        return cls.from_counts(space, [unit.width for unit in space.units], [stage.blocks for stage in space.stages])

    @classmethod
    def smallest(cls, space: SearchSpace) -> Shape:
        """The shape with the smallest candidate of every choice."""
        return cls.from_counts(
            space,
            [unit.candidates[0] for unit in space.units],
            [stage.candidates[0] for stage in space.stages],
        )

    @classmethod
    def random(cls, space: SearchSpace, seed: int) -> Shape:
        """A shape with every choice drawn uniformly from its candidates."""
        (widths,), (depths,) = space.draw(np.random.default_rng(seed), 1)
        return cls.from_counts(space, widths, depths)

    @classmethod
    def from_counts(cls, space: SearchSpace, widths: Any, depths: Any) -> Shape:
        """Makes a shape from counts in the order of the space's units and stages."""
        return cls(
            space.graph.network,
            space.graph.digest,
            {unit.name: int(width) for unit, width in zip(space.units, widths, strict=True)},
            {stage.name: int(depth) for stage, depth in zip(space.stages, depths, strict=True)},
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """All widths, then all depths: what tells the shapes of one space apart."""
        return (*self.widths.values(), *self.depths.values())

    @classmethod
    def load(cls, path: str | Path) -> Shape:
        """Reads a shape file.

        Raises:
            UserError: If the file is missing or isn't a shape. The message names the wrong entry.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"`shape`: can't read {path}: {error.strerror}.") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"`shape`: {path} is not JSON: {error}.") from error
        return cls.from_json(data, where=f"`shape`: {path}")

    @classmethod
    def from_json(cls, data: Any, *, where: str = "shape") -> Shape:
        """Makes a shape from its JSON form.

        Args:
            data: Output of `to_json`.
            where: Start of error messages.

        Raises:
            UserError: If `data` isn't a shape. The message names the wrong entry.
        """
        if not isinstance(data, dict) or set(data) != _KEYS:
            got = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
            raise UserError(f"{where}: expected an object with the keys {', '.join(sorted(_KEYS))}. Received: {got}.")
        if data["version"] != _VERSION:
            raise UserError(f"{where}: version: expected {_VERSION}. Received: {data['version']!r}.")
        for key in ("network", "graph_digest"):
            if not isinstance(data[key], str):
                raise UserError(f"{where}: {key}: expected a string. Received: {data[key]!r}.")
        for key in ("widths", "depths"):
            if not isinstance(data[key], dict):
                raise UserError(f"{where}: {key}: expected an object of whole numbers. Received: {data[key]!r}.")
            for name, count in data[key].items():
                if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                    raise UserError(f"{where}: {key}.{name}: expected a whole number, at least 1. Received: {count!r}.")
        return cls(data["network"], data["graph_digest"], data["widths"], data["depths"])

    def to_json(self) -> dict[str, Any]:
        """The JSON form, as in a shape file."""
        return {
            "version": _VERSION,
            "network": self.network,
            "graph_digest": self.graph_digest,
            "widths": dict(self.widths),
            "depths": dict(self.depths),
        }

    def check(self, space: SearchSpace) -> None:
        """Checks that the shape fits the network of this space.

        Raises:
            UserError: If the shape belongs to another network, or a count is missing or out of range.
        """
        graph = space.graph
        if self.graph_digest and self.graph_digest != graph.digest:
            raise UserError(
                f"`shape` belongs to another network: it was made for {self.network} ({self.graph_digest}). "
                f"Received the network {graph.network} ({graph.digest}). "
                "Use the model, image size and number of classes that the shape was made for."
            )
        if not self.graph_digest and self.network != graph.network:
            raise UserError(f"`shape` is for {self.network}. Received the network {graph.network}.")
        steps = {unit.name: unit.step for unit in space.units}
        limits = {
            "widths": (self.widths, {unit.name: unit.width for unit in space.units}),
            "depths": (self.depths, {stage.name: stage.blocks for stage in space.stages}),
        }
        for key, (counts, expected) in limits.items():
            for name in [*expected, *counts]:
                if name not in counts:
                    raise UserError(f"`shape`: {key}.{name} is missing. Expected 1 to {expected[name]}.")
                if name not in expected:
                    raise UserError(f"`shape`: {key}.{name} is unknown to {graph.network}.")
                # The published shape for ResNet-50 is wider than the network in two units, 70 instead of 64 filters.
                wider = 2 if key == "widths" and not self.graph_digest else 1
                if not 1 <= counts[name] <= wider * expected[name]:
                    raise UserError(f"`shape`: {key}.{name}: expected 1 to {expected[name]}. Received: {counts[name]}.")
                if key == "widths" and counts[name] % steps[name]:
                    raise UserError(
                        f"`shape`: {key}.{name}: expected a multiple of {steps[name]}, since a layer keeps "
                        f"whole groups of channels. Received: {counts[name]}."
                    )


class ActiveChannels:
    """Finds which channels of a tensor a shape keeps.

    Args:
        space: Search space of the unpruned network.
        shape: Shape to apply.
        order: Order of each unit's channels, of which a shape keeps the first; by default the network's own order.
    """

    def __init__(self, space: SearchSpace, shape: Shape, order: Mapping[str, np.ndarray] | None = None) -> None:
        self._space = space
        self._shape = shape
        self._order = order or {}

    def width(self, segment: Segment) -> int:
        """Number of channels that the shape keeps of a segment."""
        return len(self._kept(segment))

    def _kept(self, segment: Segment) -> np.ndarray:
        """Indices of the kept channels within a segment."""
        if segment.source is None:
            return np.arange(segment.width)
        stage = self._space.stage.get(segment.source)
        if stage is not None:
            kept = self._kept(self._space.segments[stage.ends[self._shape.depths[stage.name] - 1]][0])
        else:
            width, order = self._shape.widths[segment.source], self._order.get(segment.source)
            kept = np.arange(width) if order is None else order[:width]
        full = self._space.full_width(segment.source)
        return kept if full == segment.width else _in_groups(kept, Fraction(segment.width, full))

    def _indices(self, segments: tuple[Segment, ...]) -> np.ndarray:
        kept, start = [], 0
        for segment in segments:
            kept.append(start + self._kept(segment))
            start += segment.width
        return np.concatenate(kept) if kept else np.zeros(0, np.int64)

    def made(self, name: str) -> np.ndarray:
        """Indices of the kept channels in a node's own output."""
        return self._indices(self._space.segments[name])

    def read(self, name: str) -> np.ndarray:
        """Indices of the channels that readers of a node get. After a stage, these come from its last kept block."""
        return self._indices(self._space.read_segments(name))


def _in_groups(kept: np.ndarray, scale: Fraction) -> np.ndarray:
    """Channels that grouped convolutions make of kept channels.

    Args:
        kept: Indices of the channels kept, in whole groups.
        scale: Channels made for each channel read.

    >>> _in_groups(np.array([4, 5, 0, 1]), Fraction(3, 2)).tolist()
    [6, 7, 8, 0, 1, 2]
    """
    groups = kept[:: scale.denominator] // scale.denominator
    return (groups[:, None] * scale.numerator + np.arange(scale.numerator)).reshape(-1)


def dropped_nodes(space: SearchSpace, shape: Shape) -> tuple[frozenset[str], dict[str, str]]:
    """Finds the nodes that a shape drops, and for each shortened stage, which block end replaces its last one."""
    dropped = frozenset(name for name, (stage, block) in space.block_of.items() if block > shape.depths[stage])
    rewired = {
        stage.ends[-1]: stage.ends[shape.depths[stage.name] - 1]
        for stage in space.stages
        if shape.depths[stage.name] < stage.blocks
    }
    return dropped, rewired
