"""The candidates of several choices as one padded table, and packing of rows of numbers into its shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np


class Choice(Protocol):
    """A width unit or a stage: something with a name and candidates."""

    @property
    def name(self) -> str:
        """Name of the choice."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """Counts to choose from, ascending."""


@dataclass(frozen=True)
class ChoiceTable:
    """Candidates of width units or of stages, one row each.

    Packed arrays have at least one row and one column, so that networks without choices need no special case.

    Attributes:
        names: Names of the units or stages.
        candidates: Filter or block counts to choose from, ascending, for each unit or stage.
    """

    names: tuple[str, ...]
    candidates: tuple[tuple[int, ...], ...]

    @classmethod
    def from_choices(cls, choices: Iterable[Choice]) -> ChoiceTable:
        """Collects units or stages."""
        choices = tuple(choices)
        return cls(tuple(choice.name for choice in choices), tuple(tuple(choice.candidates) for choice in choices))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def row(self) -> dict[str, int]:
        """Row of each unit or stage, by name."""
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of candidates of each choice, `[choices]`."""
        return np.array([len(row) for row in self.candidates], np.int64)

    @property
    def num_rows(self) -> int:
        """Number of rows in packed arrays: the number of choices, at least 1."""
        return max(1, len(self.names))

    @property
    def longest(self) -> int:
        """Number of columns in packed arrays: the largest number of candidates, at least 1."""
        return max((len(row) for row in self.candidates), default=1)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of packed arrays, `(rows, candidates)`."""
        return self.num_rows, self.longest

    @cached_property
    def table(self) -> np.ndarray:
        """Candidates, padded with 0, `[rows, candidates]`."""
        return self.pack(self.candidates, dtype=np.int64)

    def pack(self, rows: Iterable[Sequence[Any]], *, fill: Any = 0, dtype: Any = np.float32) -> np.ndarray:
        """Packs one sequence per choice into a padded array, `[rows, candidates]`.

        >>> ChoiceTable(("a", "b"), ((4, 8), (2, 3, 4))).pack([[0.5, 0.5], [0.2, 0.3, 0.5]])
        array([[0.5, 0.5, 0. ],
               [0.2, 0.3, 0.5]], dtype=float32)
        """
        return pad_rows(rows, self.shape, fill=fill, dtype=dtype)

    def unpack(self, array: np.ndarray) -> list[np.ndarray]:
        """Removes the padding from each row; the inverse of `pack`."""
        return [row[:count] for row, count in zip(array[: len(self)], self.counts, strict=True)]

    def draw(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Draws candidates uniformly, `[number, choices]`. Makes all draws of one choice before those of the next."""
        drawn = np.zeros((number, len(self)), np.int64)
        for row, candidates in enumerate(self.candidates):
            drawn[:, row] = rng.choice(candidates, number)
        return drawn

    def draw_probabilities(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a distribution for each choice, uniformly among all distributions, `[rows, candidates]`."""
        return rng.dirichlet(np.ones(self.longest), self.num_rows)


def pad_rows(
    rows: Iterable[Sequence[Any]], shape: tuple[int, int], *, fill: Any = 0, dtype: Any = np.float32
) -> np.ndarray:
    """Writes sequences of different lengths into the rows of an array and pads them with `fill`."""
    array = np.full(shape, fill, dtype)
    for row, values in enumerate(rows):
        array[row, : len(values)] = values
    return array
