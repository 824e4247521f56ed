"""One draw of candidates: which ones the supernet mixes, and with which weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tas_tf.errors import UserError
from tas_tf.space.choices import pad_rows
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace


@dataclass(frozen=True)
class Sample:
    """Weights of the candidates of every searched unit and stage.

    Attributes:
        widths: For each unit, the indices of the drawn candidates and their weights.
        depths: For each stage, the weights of all its candidates.
    """

    widths: Mapping[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)
    depths: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def one_hot(cls, space: SearchSpace, shape: Shape) -> Sample:
        """The sample that selects a single shape.

        Raises:
            UserError: If a width or depth of the shape isn't a candidate.
        """
        shape.check(space)
        widths, depths = {}, {}
        for unit in space.searched_units:
            widths[unit.name] = ((_index(unit, shape.widths[unit.name]),), (1.0,))
        for stage in space.searched_stages:
            chosen = _index(stage, shape.depths[stage.name])
            depths[stage.name] = tuple(float(place == chosen) for place in range(len(stage.candidates)))
        for choice in space.choices:
            if len(choice.candidates) == 1:
                _index(choice, shape.widths.get(choice.name) or shape.depths.get(choice.name))
        return cls(widths, depths)

    def arrays(self, space: SearchSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Packs the sample into arrays for the layers, in the order of the space's searched units and stages.

        Returns:
            Indices `[units, drawn]` int32, weights `[units, drawn]` float32, depth weights `[stages, candidates]`
            float32. Arrays are padded with 0 and have at least one row.

        Raises:
            UserError: If the sample doesn't fit the space. The message names the unit or stage.
        """
        self._check(space)
        drawn = [self.widths[name] for name in space.width_choices.names]
        shape = space.width_choices.num_rows, max((len(indices) for indices, _ in drawn), default=1)
        indices = pad_rows([indices for indices, _ in drawn], shape, dtype=np.int32)
        weights = pad_rows([weights for _, weights in drawn], shape)
        return indices, weights, space.depth_choices.pack([self.depths[name] for name in space.depth_choices.names])

    def _check(self, space: SearchSpace) -> None:
        for key, choices, given in (
            ("widths", space.searched_units, self.widths),
            ("depths", space.searched_stages, self.depths),
        ):
            names = {choice.name for choice in choices}
            for name in names ^ set(given):
                raise UserError(f"`sample`: {key}.{name} {'is missing' if name in names else 'is not searched'}.")
        for unit in space.searched_units:
            indices, weights = self.widths[unit.name]
            count = len(unit.candidates)
            if not len(indices) == len(weights) >= 1 or not all(0 <= index < count for index in indices):
                raise UserError(
                    f"`sample`: widths.{unit.name}: expected indices from 0 to {count - 1} and a weight for each. "
                    f"Received: {indices} and {weights}."
                )
        for stage in space.searched_stages:
            if len(self.depths[stage.name]) != len(stage.candidates):
                raise UserError(
                    f"`sample`: depths.{stage.name}: expected {len(stage.candidates)} weights, one per candidate. "
                    f"Received: {self.depths[stage.name]}."
                )


def _index(choice, count: int) -> int:
    if count not in choice.candidates:
        raise UserError(
            f"`shape`: {choice.name} keeps {count}, which is not a candidate of the search. "
            f"Expected one of {', '.join(map(str, choice.candidates))}."
        )
    return choice.candidates.index(count)
