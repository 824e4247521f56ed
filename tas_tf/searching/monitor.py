"""Decodes and scores a search's shape after each epoch and at the end, and measures how decided the search is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.initializers import Constant

from tas_tf import workers
from tas_tf.cost.cost_model import CostModel, reported
from tas_tf.decode.decode import decode
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import Meter, budget_figures, find_within, real_cost
from tas_tf.supernet.build import Supernet
from tas_tf.supernet.held_out import HeldOutScore
from tas_tf.training.loop import SECONDS

#: Mean entropy, as a share of the uniform distribution's, above which a search is undecided.
UNDECIDED = 0.8


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        shape: Most probable shape within the budget, from the epoch that `SearchSettings.keep_shape` selects.
        metrics: JSON-ready numbers about the shape.
        history: Values by epoch.
        warnings: Advice if the search didn't converge.
        supernet: Supernet at the end of the search, with the shape's running statistics. `supernet_accuracy`, or
            the score that counts for another task, is the shape's held-out score in it.
        probabilities: Final probabilities of widths and depths, as `tas_tf.decode.decode.decode` takes them.

    Example:
        ```python
        print(found.shape.widths, found.shape.depths, found.warnings)
        ```
    """

    shape: Shape
    metrics: dict[str, Any]
    history: dict[str, list[float]]
    warnings: tuple[str, ...]
    supernet: Supernet = field(repr=False)
    probabilities: tuple[np.ndarray, np.ndarray] = field(repr=False)


# Below any score. Infinity would be taken for a training that diverges.
_LOWEST = -1e30


class BestShape(keras.layers.Layer):
    """Keeps the shape with the best held-out score so far in variables."""

    def __init__(self, space: SearchSpace, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self._space = space
        count = len(space.units) + len(space.stages)
        self.counts = self.add_weight(name="counts", shape=(count,), dtype="int64", initializer="zeros")
        self.goodness = self.add_weight(name="goodness", shape=(), dtype="float64", initializer=Constant(_LOWEST))

    def consider(self, shape: Shape, goodness: float) -> None:
        """Keeps a shape unless an earlier one was better; see `Objective.goodness`."""
        if goodness >= float(keras.ops.convert_to_numpy(self.goodness)):
            self.goodness.assign(goodness)
            self.counts.assign(shape.counts)

    def shape(self) -> Shape:
        """Returns the best shape.

        Raises:
            ValueError: No shape was considered yet.
        """
        if float(keras.ops.convert_to_numpy(self.goodness)) < _LOWEST / 2:
            raise ValueError("No shape was considered yet.")
        counts = keras.ops.convert_to_numpy(self.counts)
        widths, depths = np.split(counts, [len(self._space.units)])
        return Shape.from_counts(self._space, widths, depths)


class SearchMonitor:
    """Decodes the distributions after each epoch and scores the decoded shape."""

    def __init__(
        self,
        supernet: Supernet,
        cost: CostModel,
        limit: int,
        settings: SearchSettings,
        score: HeldOutScore,
        best: BestShape,
        meter: Meter | None = None,
    ) -> None:
        self.supernet, self.cost, self.limit, self.settings = supernet, cost, limit, settings
        self.space = cost.space
        self._score, self._best, self._meter = score, best, meter
        self.shape: Shape | None = None

    def __call__(self) -> dict[str, float]:
        """Returns held-out score and cost of the decoded shape, and the entropies of the distributions."""
        keeps_best = self.settings.keep_shape == "best"
        # A shape that may be kept must be affordable. Measuring files takes seconds, so others rely on predictions.
        self.shape = self._affordable() if keeps_best else self.decode(self.limit)
        score, objective = self._score(self.shape), self._score.objective
        self._best.consider(self.shape, objective.goodness(score))
        widths, depths = self.entropies()
        return {
            objective.metric: score,
            "cost": self.cost(self.shape) / self.cost.full,
            "width_entropy": widths,
            "depth_entropy": depths,
        }

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns probabilities of widths and depths, with rows in the order of the searched units and stages."""
        return tuple(tensor.numpy() for tensor in self.supernet.gates.probabilities())

    def decode(self, limit: int) -> Shape:
        """Returns the most probable shape that costs at most `limit`."""
        tolerance = int(self.settings.tolerance * self.cost.full)
        return workers.once(lambda: decode(self.cost, *self.probabilities(), limit=limit, tolerance=tolerance))

    def _affordable(self) -> Shape:
        """Returns the most probable shape whose real cost is within the budget."""
        return find_within(self.decode, self.cost, self.limit, self._meter)[0]

    def entropies(self) -> tuple[float, float]:
        """Returns mean entropies of widths and depths, as shares of the uniform one's; 0 if there are no choices."""
        means = []
        for rows, choices in zip(
            self.probabilities(), (self.space.width_choices, self.space.depth_choices), strict=True
        ):
            shares = [-(row[row > 0] * np.log(row[row > 0])).sum() / np.log(len(row)) for row in choices.unpack(rows)]
            means.append(float(np.mean(shares)) if shares else 0.0)
        return means[0], means[1]

    def result(self, history: dict[str, list[float]]) -> SearchResult:
        """Selects the final shape, leaves its running statistics in the supernet, and collects all results."""
        self.shape = self._best.shape() if self.settings.keep_shape == "best" else self._affordable()
        spent = real_cost(self.cost, self.shape, self._meter)
        objective, kind = self._score.objective, self.cost.kind
        scores = history[f"val_{objective.metric}"]
        # The last of equally good epochs, as in `BestShape`.
        kept = max(range(len(scores)), key=lambda epoch: (objective.goodness(scores[epoch]), epoch))
        kept = kept if self.settings.keep_shape == "best" else len(scores) - 1
        at_the_end = self._score(self.shape)
        # If the last shape's file was too large, another shape, not scored yet, has replaced it.
        is_scored = self.settings.keep_shape == "best" or self.shape == self.decode(self.limit)
        widths, depths = self.entropies()
        metrics = {
            **budget_figures(self.cost, self.limit, spent),
            f"held_out_{objective.metric}": scores[kept] if is_scored else at_the_end,
            "kept_epoch": kept + 1,
            f"supernet_{objective.metric}": at_the_end,
            "width_entropy": widths,
            "depth_entropy": depths,
            "epochs": self.settings.all_epochs,
            "seed": self.settings.seed,
            "seconds": round(sum(history[SECONDS]), 1),
        }
        by_epoch = {
            f"expected_{kind}": [reported(kind, share * self.cost.full) for share in history["expected_cost"]],
            f"argmax_{kind}": [reported(kind, share * self.cost.full) for share in history["argmax_cost"]],
            f"held_out_{objective.metric}": scores,
        }
        warnings = tuple(self._warnings(widths, depths))
        return SearchResult(self.shape, metrics, by_epoch, warnings, self.supernet, self.probabilities())

    def _warnings(self, widths: float, depths: float) -> Iterator[str]:
        for axis, entropy in (("width", widths), ("depth", depths)):
            if entropy > UNDECIDED:
                yield (
                    f"The {axis} distributions have not converged: mean entropy {entropy:.2f} of a uniform one's. "
                    "Raise `arch_lr` or `epochs`."
                )
