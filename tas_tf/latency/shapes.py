"""Which shapes of a network are measured to learn its latency."""

from __future__ import annotations

import numpy as np

from tas_tf.space.choices import Choice
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

# Spread of the choices in one shape: some shapes are alike throughout, as uniform ones are, the others mixed.
_SPREADS = (0.15, 0.3, 1.0)
_MISSES = 50


def shapes_to_measure(space: SearchSpace, count: int, *, seed: int = 0) -> list[Shape]:
    """Lists different shapes: the full one, the smallest one, and random ones of all sizes in between.

    Args:
        space: Search space.
        count: Largest number of shapes; small spaces have fewer.
        seed: Seed of the random shapes.

    Example:
        >>> import tas_tf
        >>> space = tas_tf.SearchSpace.from_model(tas_tf.load_network("resnet8", image_size=8))
        >>> shapes = shapes_to_measure(space, 5)
        >>> len(shapes), shapes[0] == tas_tf.Shape.full(space), shapes[1] == tas_tf.Shape.smallest(space)
        (5, True, True)
    """
    rng = np.random.default_rng(seed)
    by_kind: tuple[tuple[Choice, ...], ...] = (space.units, space.stages)

    def drawn(spread: float) -> Shape:
        widths, depths = (
            [_near(choice.candidates, level, spread, rng) for choice in choices]
            for level, choices in zip(rng.uniform(size=2), by_kind, strict=True)
        )
        return Shape.from_counts(space, widths, depths)

    found = {shape.counts: shape for shape in (Shape.full(space), Shape.smallest(space))}
    misses = 0
    while len(found) < count and misses < _MISSES:
        shape = drawn(_SPREADS[len(found) % len(_SPREADS)])
        misses = misses + 1 if shape.counts in found else 0
        found.setdefault(shape.counts, shape)
    return list(found.values())[:count]


def _near(candidates: tuple[int, ...], level: float, spread: float, rng: np.random.Generator) -> int:
    """A candidate at about a level from 0, the smallest, to 1, the largest."""
    place = np.clip(rng.normal(level, spread), 0, 1) if spread < 1 else rng.uniform()
    return candidates[round(place * (len(candidates) - 1))]
