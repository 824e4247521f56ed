"""A model of a network's latency, learned from measured shapes, in the form of every other cost."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from tas_tf.cost.cost_model import MILLISECOND, CostModel
from tas_tf.cost.terms import SINGLE, Term, Tiles
from tas_tf.latency.operators import Operator, operators
from tas_tf.space.space import SearchSpace

#: Units of cost in a second.
SECOND = 1000 * MILLISECOND
# Kernels work on vectors of 4 to 64 numbers. Some take smaller vectors for few channels made.
_TILE_SIZES = (1, 4, 8, 16, 32, 64)
_MAKE_TILES = (
    *(Tiles(size, size) for size in _TILE_SIZES),
    *(Tiles(small, large) for small, large in itertools.combinations(_TILE_SIZES, 2) if small >= 8),
)
_READ_TILES = tuple(Tiles(size, size) for size in _TILE_SIZES[:4])
_PASSES = 3
_RIDGE = 3e-3  # decides only between models that fit alike
_BETTER = 0.999
_FOLDS = 5


@dataclass(frozen=True)
class Kernel:
    """What the operators of one kind cost.

    Attributes:
        seconds: Seconds for one unit of each quantity, see `tas_tf.latency.operators.QUANTITIES`.
        read_tiles: How the kernel counts the channels that it reads.
        make_tiles: How it counts the channels that it makes.
    """

    seconds: Mapping[str, float]
    read_tiles: Tiles = SINGLE
    make_tiles: Tiles = SINGLE


@dataclass(frozen=True)
class LatencyModel:
    """The latency of a network's shapes: a sum over its operators.

    Attributes:
        kernels: What operators cost, by kind.
        base: Seconds that every shape takes.
    """

    kernels: Mapping[str, Kernel]
    base: float

    def cost(self, space: SearchSpace, *, full: int | None = None) -> CostModel:
        """The model as a cost, in femtoseconds.

        Args:
            space: Search space of the network.
            full: Measured latency of the unpruned network, which shares refer to; by default what the model predicts.
        """
        terms = [Term(space.graph.output, round(self.base * SECOND))]
        for operator in operators(space):
            kernel = self.kernels[operator.kind]
            for quantity in operator.quantities:
                scale = kernel.seconds[quantity] * SECOND
                terms.append(operator.term(quantity, kernel.read_tiles, kernel.make_tiles, scale=scale))
        return CostModel(space, "latency", terms=[term for term in terms if term.factor], full=full)


@dataclass(frozen=True)
class Error:
    """How far predictions are from measurements that the model wasn't fitted to, as shares of the latter.

    Attributes:
        mean: Mean of the absolute errors.
        worst: Largest absolute error.
    """

    mean: float
    worst: float


def fit(space: SearchSpace, widths: np.ndarray, depths: np.ndarray, seconds: np.ndarray) -> tuple[LatencyModel, Error]:
    """Fits a model to measured latencies.

    All operators of one kind share their coefficients, none of which is negative. How a kernel counts channels is
    chosen by what fits best, kind by kind. Relative errors count.

    Args:
        space: Search space of the network.
        widths: Widths of all units, `[shapes, units]`.
        depths: Depths of all stages, `[shapes, stages]`.
        seconds: Latencies, `[shapes]`.

    Returns:
        The model, and its error by cross-validation.
    """
    features = _Features(space, widths, depths)
    everything = np.arange(len(seconds))
    tiles = features.choose_tiles(everything, seconds)
    errors = []
    for fold in range(_FOLDS):
        left_out = everything % _FOLDS == fold
        (train,), (test,) = np.nonzero(~left_out), np.nonzero(left_out)
        if len(train) and len(test):
            chosen = features.choose_tiles(train, seconds)
            weights, _ = _solve(features.matrix(chosen)[train], seconds[train])
            errors += (features.matrix(chosen)[test] @ weights / seconds[test] - 1).tolist()
    weights, _ = _solve(features.matrix(tiles), seconds)
    distances = np.abs(errors or [0.0])  # a single shape is its own model
    return features.model(tiles, weights), Error(float(distances.mean()), float(distances.max()))


_Chosen = tuple[tuple[Tiles, Tiles], ...]


class _Features:
    """The quantities of all kinds of operators in given shapes."""

    def __init__(self, space: SearchSpace, widths: np.ndarray, depths: np.ndarray) -> None:
        self._space, self._shapes = space, (widths, depths)
        self._by_kind: dict[str, list[Operator]] = {}
        for operator in operators(space):
            self._by_kind.setdefault(operator.kind, []).append(operator)
        self._block = functools.cache(self._make_block)

    def choose_tiles(self, rows: np.ndarray, seconds: np.ndarray) -> _Chosen:
        """Chooses how each kind counts channels, from some of the shapes: one kind at a time, as long as it helps."""
        chosen = [(SINGLE, SINGLE)] * len(self._by_kind)
        best = self._residual(chosen, rows, seconds)
        for _ in range(_PASSES):
            before = best
            for place, options in enumerate(self._options):
                for option in options:
                    other = [*chosen[:place], option, *chosen[place + 1 :]]
                    residual = self._residual(other, rows, seconds)
                    if residual < best * _BETTER:
                        best, chosen = residual, other
            if best > before * _BETTER:
                break
        return tuple(chosen)

    def matrix(self, chosen: Sequence[tuple[Tiles, Tiles]]) -> np.ndarray:
        """All quantities, `[shapes, kinds x quantities + 1]`; the last is 1."""
        blocks = [self._block(kind, *tiles) for kind, tiles in zip(self._by_kind, chosen, strict=True)]
        return np.concatenate([*blocks, np.ones((len(self._shapes[0]), 1))], axis=1)

    def model(self, chosen: Sequence[tuple[Tiles, Tiles]], weights: np.ndarray) -> LatencyModel:
        """The model with these coefficients."""
        kernels, left = {}, weights.tolist()
        for (kind, operators_), tiles in zip(self._by_kind.items(), chosen, strict=True):
            quantities = operators_[0].quantities
            kernels[kind] = Kernel(dict(zip(quantities, left, strict=False)), *tiles)
            left = left[len(quantities) :]
        return LatencyModel(kernels, left[0])

    @property
    def _options(self) -> list[list[tuple[Tiles, Tiles]]]:
        kinds = [group[0] for group in self._by_kind.values()]
        return [
            [
                (read, make)
                for make in (_MAKE_TILES if kind.area else ())
                for read in (_READ_TILES if not kind.per_channel else (SINGLE,))
            ]
            for kind in kinds
        ]

    def _residual(self, chosen: Sequence[tuple[Tiles, Tiles]], rows: np.ndarray, seconds: np.ndarray) -> float:
        return _solve(self.matrix(chosen)[rows], seconds[rows])[1]

    def _make_block(self, kind: str, read_tiles: Tiles, make_tiles: Tiles) -> np.ndarray:
        columns = []
        for quantity in self._by_kind[kind][0].quantities:
            terms = [operator.term(quantity, read_tiles, make_tiles) for operator in self._by_kind[kind]]
            columns.append(CostModel(self._space, "latency", terms=terms).exact(*self._shapes))
        return np.array(columns, np.float64).T


def _solve(quantities: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, float]:
    """Non-negative coefficients of least relative error, and the root of the sum of its squares."""
    relative = quantities / seconds[:, None]
    scale = np.maximum(np.abs(relative).max(0), 1e-300)
    ridge = _RIDGE * np.eye(relative.shape[1])
    targets = np.concatenate([np.ones(len(seconds)), np.zeros(len(ridge))])
    found, residual = nnls(np.concatenate([relative / scale, ridge]), targets)
    return found / scale, float(residual)
