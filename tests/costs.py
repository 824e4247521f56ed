"""Latencies that are computed instead of measured: no test depends on how fast or busy a machine is."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tas_tf.cost.cost_model import MILLISECOND, CostModel
from tas_tf.cost.terms import Tiles, mac_terms
from tas_tf.latency.measure import Target, Timing
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

_TILES = (Tiles(), Tiles(4, 4), Tiles(2, 8), Tiles(8, 8))


def tiled_cost(space: SearchSpace, seed: int = 0) -> CostModel:
    """A latency whose kernels count channels in tiles of several kinds, with a constant for each layer."""
    rng = np.random.default_rng(seed)
    terms = []
    for term in mac_terms(space):
        read, make = (_TILES[number] for number in rng.integers(len(_TILES), size=2))
        terms += [
            dataclasses.replace(term, factor=1000 * term.factor, read_tiles=read, make_tiles=make),
            dataclasses.replace(term, factor=int(rng.integers(1, 10**9)), reads=(), makes=()),
        ]
    return CostModel(space, "latency", terms=terms)


class Clock:
    """Stands in for `time_shapes`: latencies of a hidden cost model, and a record of what was timed.

    Attributes:
        timed: All shapes that were timed.
        slower: By how much a shape takes longer than the model says, but for the first `exact` ones.
        noise: Difference between two halves of a measurement.
        accelerated: Whether the runtime has fast kernels.
    """

    def __init__(self) -> None:
        self.timed: list[Shape] = []
        self.slower, self.exact, self.noise = 1.0, 10**6, 0.001
        self.accelerated = True

    def cost(self, space: SearchSpace) -> CostModel:
        return tiled_cost(space)

    def __call__(self, space: SearchSpace, shapes: Sequence[Shape], target: Target, **more: Any) -> Iterator[Timing]:
        cost = self.cost(space)
        for shape in shapes:
            self.timed.append(shape)
            factor = self.slower if len(self.timed) > self.exact else 1.0
            ratio = factor * cost(shape) / cost.full
            yield Timing(shape, ratio, self.noise, cost.full / MILLISECOND, self.accelerated)
