"""Settings of a race."""

from __future__ import annotations

from dataclasses import dataclass

from tas_tf.errors import UserError
from tas_tf.settings import Settings, setting

# A lap of fewer steps says nothing about a shape.
_FEWEST_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class RaceSettings(Settings):
    """Settings of a race between shapes.

    Example:
        >>> import tas_tf
        >>> tas_tf.RaceSettings(proposals=8).race_effort
        0.25
    """

    proposals: int = setting(4, "Number of shapes that enter the race.", at_least=1)
    searched: int = setting(
        0,
        "Number of these shapes that come from a differentiable search before the race; 0 for none.",
        at_least=0,
    )
    race_effort: float = setting(
        0.25,
        "Steps of all rounds of the race, as a share of those of the student's training; each round takes as many.",
        above=0,
    )
    race_share: float = setting(
        0.8, "Share of the training images that the race trains on; shapes are scored on the others.", above=0, below=1
    )
    rate_factors: tuple[float, ...] = setting(
        (0.25, 0.5),
        "Factors of the learning rate that are tried on one shape before the race; the highest that does nearly as "
        "well as the best also trains the student.",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate_factors:
            raise UserError("`rate_factors` must name at least one factor, such as 1. Received: none.")


@dataclass(frozen=True)
class Rounds:
    """Sizes of the rounds of a race.

    Attributes:
        entries: Number of shapes in each round; a race of one shape has one round if learning rates are tried.
        steps: Steps of training of each shape in each round.
        tries: Laps in the first round that try learning rates on one shape; the best of them is its lap.
    """

    entries: tuple[int, ...]
    steps: tuple[int, ...]
    tries: int

    @classmethod
    def plan(cls, settings: RaceSettings, *, proposals: int, student_steps: int) -> Rounds:
        """Plans a race.

        Args:
            settings: Settings of the race.
            proposals: Number of shapes.
            student_steps: Steps of the student's training.

        >>> Rounds.plan(RaceSettings(), proposals=5, student_steps=2400)
        Rounds(entries=(5, 3, 2), steps=(40, 67, 100), tries=2)
        >>> Rounds.plan(RaceSettings(), proposals=5, student_steps=2400).num_laps
        12
        """
        entries = [proposals]
        while entries[-1] > 2:
            entries.append(-(-entries[-1] // 2))
        tries = len(settings.rate_factors) if len(settings.rate_factors) > 1 else 0
        if proposals == 1 and not tries:
            return cls((), (), 0)
        in_round = settings.race_effort * student_steps / len(entries)
        laps = entries if proposals > 1 else [tries]
        return cls(tuple(entries), tuple(max(_FEWEST_STEPS, round(in_round / count)) for count in laps), tries)

    @property
    def num_shapes(self) -> int:
        """Largest number of shapes."""
        return self.entries[0] + self._further if self.entries else 0

    @property
    def num_laps(self) -> int:
        """Largest number of laps: a further shape may join the first round."""
        return sum(self.entries) + max(0, self.tries - 1) + self._further

    @property
    def num_steps(self) -> int:
        """Largest number of steps of all laps."""
        run = sum(count * steps for count, steps in zip(self.entries, self.steps, strict=True))
        return run + (self.steps[0] * (max(0, self.tries - 1) + self._further) if self.steps else 0)

    @property
    def _further(self) -> int:
        return int(len(self.entries) > 1)
