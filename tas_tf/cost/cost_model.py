"""The cost of a shape in multiply-adds, parameters, bytes or time. One formula gives exact and expected costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tas_tf.cost.terms import Term, Tiles, at_full_width, byte_terms, count_tiled, mac_terms, param_terms
from tas_tf.errors import UserError
from tas_tf.space.channels import Segment
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

_TERMS = {"macs": mac_terms, "params": param_terms}
COST_KINDS = (*_TERMS, "bytes", "latency")
#: Kinds that files are measured for.
MEASURED = ("bytes", "latency")
#: Latency is counted in femtoseconds, so that the time of a single multiply-add is a whole number.
MILLISECOND = 10**12
#: Bytes per operation if no file was measured. Measured files have 540 (residual networks) to 810 (MobileNetV2).
_TYPICAL_OP_BYTES = 650


def amount(kind: str, cost: float) -> str:
    """A cost in words.

    >>> amount("macs", 40_813_184), amount("latency", 850_400 * 10**6), amount("latency", 2 * MILLISECOND)
    ('40,813,184 macs', '850.4 us', '2 ms')
    """
    if kind != "latency":
        return f"{round(cost):,} {kind}"
    milliseconds = cost / MILLISECOND
    if milliseconds < 1:
        return f"{1000 * milliseconds:.4g} us"
    return f"{milliseconds:.4g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms"


def reported(kind: str, cost: float) -> float:
    """A cost as JSON files have it: latency in milliseconds, everything else as counted.

    >>> reported("macs", 100), reported("latency", 2 * MILLISECOND)
    (100, 2.0)
    """
    return cost / MILLISECOND if kind == "latency" else cost


def told(kind: str, value: float) -> str:
    """A cost from a JSON file in words, see `amount` and `reported`.

    >>> told("latency", 2.0)
    '2 ms'
    """
    return amount(kind, value * MILLISECOND if kind == "latency" else value)


def summands(factors: Any, reads: Any, makes: Any, present: Any) -> Any:
    """The cost formula. It gives exact costs for integers, and expected costs for means and probabilities.

    Args:
        factors: Factors of the terms, `[terms]`.
        reads: Channels read, in whole tiles, `[..., terms]`.
        makes: Channels made, in whole tiles, `[..., terms]`.
        present: 1 if the term's layer exists, else 0; or the probability that it exists, `[..., terms]`.

    Returns:
        Cost of each term, `[..., terms]`.
    """
    return reads * makes * present * factors


class CostModel:
    """Computes the cost of a network's shapes.

    Call the model with a shape to get its cost. `exact` takes the widths and depths of many shapes at once, in the
    order of the space's units and stages. Multiply-adds and parameters are exact; bytes and latency are predictions.

    Args:
        space: Search space of the network.
        kind: Kind of cost: `macs`, `params`, `bytes` of the float32 TFLite file, or `latency` in femtoseconds.
        file_bytes: Size of the unpruned network's file. With it, predicted bytes are within about a percent.
        terms: Terms of the latency, see `tas_tf.latency.model`; needed for that kind alone.
        full: Measured cost of the unpruned network; by default what the terms add up to.

    Example:
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet20"))
        >>> tas_tf.CostModel(space).full, tas_tf.CostModel(space, "params").full
        (40813184, 273658)
    """

    def __init__(
        self,
        space: SearchSpace,
        kind: str = "macs",
        *,
        file_bytes: int | None = None,
        terms: Sequence[Term] | None = None,
        full: int | None = None,
    ) -> None:
        if kind not in COST_KINDS:
            raise UserError(f"Cost must be one of {', '.join(COST_KINDS)}. Received: {kind!r}.")
        self.space = space
        self.kind = kind
        if (kind == "latency") != (terms is not None):
            raise UserError(
                "A cost of the kind latency, and no other, needs `terms`, which come from measurements: see "
                "`tas_tf.latency_cost`."
            )
        if terms is not None:
            self.terms = tuple(terms)
        elif kind == "bytes":
            self.terms = _calibrated(space, file_bytes)
        else:
            self.terms = tuple(_TERMS[kind](space))
        self.sources = {choice.name: place for place, choice in enumerate(space.choices)}
        self.factors = np.array([term.factor for term in self.terms], np.int64)
        self.reads = self._linear([term.reads for term in self.terms])
        self.makes = self._linear([term.makes for term in self.terms])
        #: Smallest and largest tiles of the terms, `[2, terms]`.
        self.read_tiles = _tiles([term.read_tiles for term in self.terms])
        self.make_tiles = _tiles([term.make_tiles for term in self.terms])
        self._stage_index = {stage.name: place for place, stage in enumerate(space.stages)}
        blocks = [space.block_of.get(term.layer, ("", 1)) for term in self.terms]
        #: Stage (by index) and block number of each term's layer. Block 1 always exists.
        self.block_stage = np.array([self._stage_index.get(stage, 0) for stage, _ in blocks], np.int64)
        self.block_number = np.array([number for _, number in blocks], np.int64)
        self.full = self(Shape.full(space)) if full is None else full

    def _linear(self, sides: list[tuple[Segment, ...]]) -> np.ndarray:
        """Channel counts as linear forms of the sources' widths, with the constant last: `[sources + 1, terms]`."""
        form = np.zeros((len(self.sources) + 1, len(sides)))
        for place, segments in enumerate(sides):
            if not segments:
                form[-1, place] = 1
            for segment in segments:
                if segment.source is None:
                    form[-1, place] += segment.width
                else:
                    form[self.sources[segment.source], place] += self.scale(segment)
        return form

    def scale(self, segment: Segment) -> float:
        """Channels of a segment for each channel of its source."""
        return segment.width / self.space.full_width(segment.source) if segment.source is not None else 1.0

    def __call__(self, shape: Shape) -> int:
        """Computes the cost of a shape."""
        widths = [[shape.widths[unit.name] for unit in self.space.units]]
        depths = [[shape.depths[stage.name] for stage in self.space.stages]]
        return int(self.exact(np.array(widths, np.int64), np.array(depths, np.int64))[0])

    def exact(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Computes the costs of many shapes.

        Args:
            widths: Widths of all units, `[shapes, units]`.
            depths: Depths of all stages, `[shapes, stages]`.

        Returns:
            Costs, `[shapes]`, int64.
        """
        return self._summands(widths, depths).sum(1).astype(np.int64)

    def projected(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Computes the part of `exact` that comes from projections, which only pruned shapes need, `[shapes]`."""
        optional = np.array([bool(term.differ) for term in self.terms])
        return self._summands(widths, depths)[:, optional].sum(1).astype(np.int64)

    def _summands(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Cost of each term, `[shapes, terms]`."""
        sizes = self._sizes(widths, depths)
        present = np.ones((len(sizes), len(self.terms)))
        if self.space.stages:
            present *= depths[:, self.block_stage] >= self.block_number
        for place, term in enumerate(self.terms):
            if term.differ:
                same = np.ones(len(sizes), bool)
                for identity, branch in term.differ:
                    same &= self._size(sizes, identity) == self._size(sizes, branch)
                present[:, place] *= ~same
        # Integer matrix products are slow in NumPy. float64 is exact up to 2^53, far above the cost of any network.
        numbers = sizes.astype(np.float64)
        reads, makes = np.rint(numbers @ self.reads), np.rint(numbers @ self.makes)  # scales may be fractions
        reads, makes = count_tiled(reads, *self.read_tiles), count_tiled(makes, *self.make_tiles)
        return summands(self.factors.astype(np.float64), reads, makes, present)

    def _sizes(self, widths: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """Widths of units, output widths of stages, and a constant 1: `[shapes, sources + 1]`."""
        count = len(widths)
        stages = np.zeros((count, len(self.space.stages)), np.int64)
        sizes = np.concatenate([widths, stages, np.ones((count, 1), np.int64)], axis=1)
        for place, stage in enumerate(self.space.stages):
            ends = [self.space.segments[end] for end in stage.ends]
            if any(len(segments) != 1 for segments in ends):
                continue  # no segment has this stage as its source
            by_depth = np.stack([self._size(sizes, segments[0]) for segments in ends], axis=1)
            sizes[:, self.sources[stage.name]] = by_depth[np.arange(count), depths[:, place] - 1]
        return sizes

    def _size(self, sizes: np.ndarray, segment: Segment) -> np.ndarray:
        if segment.source is None:
            return np.full(len(sizes), segment.width, np.int64)
        return sizes[:, self.sources[segment.source]] * segment.width // self.space.full_width(segment.source)


def _tiles(tiles: Sequence[Tiles]) -> np.ndarray:
    return np.array([[each.smallest, each.largest] for each in tiles], np.int64).reshape(-1, 2).T


def _calibrated(space: SearchSpace, file_bytes: int | None) -> tuple[Term, ...]:
    """Makes byte terms that add up to `file_bytes` at full size. Operations share the non-weight bytes evenly."""
    if file_bytes is None:
        return tuple(byte_terms(space, _TYPICAL_OP_BYTES))
    weights, both = (sum(at_full_width(term) for term in byte_terms(space, size) if not term.differ) for size in (0, 1))
    op_bytes, rest = divmod(file_bytes - weights, both - weights)
    return (*byte_terms(space, max(0, op_bytes)), Term(space.graph.output, rest if op_bytes >= 0 else 0))
