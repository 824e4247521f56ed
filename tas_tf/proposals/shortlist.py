"""Which shapes enter a race: uniform ones, those of least damage, and those that a search found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tas_tf.cost.cost_model import CostModel, amount
from tas_tf.errors import UserError
from tas_tf.proposals.sensitivities import Sensitivities, least_damaged
from tas_tf.proposals.uniform import cheapest_uniform_shape, depth_choices, uniform_shape
from tas_tf.space.shape import Shape
from tas_tf.student.meter import Meter, find_within

_TILT = 0.3
_TILTS = {-_TILT: "early", 0.0: "uniform", _TILT: "late"}
_SPREAD = 0.5


@dataclass(frozen=True)
class Proposal:
    """A shape that is worth training.

    Attributes:
        name: Name in logs and reports, which tells the source: `uniform`, `uniform 1/2/2` (depths), `early` or `late`
            (a larger share of those layers), `sensitivities`, `sensitivities 2` (perturbed), or `search`.
        shape: Widths and depths within the budget.
        tilt: Tilt of the shares between layers, see `uniform_shape`; `None` if the shape follows no such rule.
    """

    name: str
    shape: Shape
    tilt: float | None = None

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks that each stage keeps."""
        return tuple(self.shape.depths.values())


@dataclass(frozen=True)
class Proposer:
    """Proposes shapes within a budget.

    Attributes:
        cost: Cost model.
        limit: Budget.
        damage: Damage of each candidate, for shapes of least damage.
        divisor: Widths of uniform and tilted shapes are rounded down to multiples of this number.
        meter: Measures shapes; needed for budgets in bytes or time.
        seed: Seed of perturbations.
    """

    cost: CostModel
    limit: int
    damage: Sensitivities | None = None
    divisor: int = 1
    meter: Meter | None = None
    seed: int = 0

    def shortlist(self, count: int, found: Sequence[Proposal] = ()) -> tuple[Proposal, ...]:
        """Lists different shapes from all sources in turns.

        The uniform shape of full depth comes first if it is within reach, so that a race can't lose to it. Half of the
        others are uniform shapes of other depths. The rest are a shape of least damage, those that are wider early and
        late, and further ones of little damage.

        Args:
            count: Largest number of shapes.
            found: Shapes that a search found, which always enter.

        Raises:
            UserError: No shape is within the budget.
        """
        full = tuple(stage.blocks for stage in self.cost.space.stages)
        depths = [choice for choice in depth_choices(self.cost.space, max(2, count // 2 + 1)) if choice != full]
        uniforms = (self._uniform(choice, 0.0) for choice in depths)
        tilted = (self._uniform(full, tilt) for tilt in (-_TILT, _TILT))
        least = (self._least_damaged(number) for number in range(1, 1 + 2 * count))
        sources = _in_turns(uniforms, itertools.chain([next(least)], tilted, least))
        plain = self._uniform(full, 0.0)()
        shortlist = {} if plain is None else {plain.shape.counts: plain}
        for one in found:
            shortlist.setdefault(one.shape.counts, one)
        while len(shortlist) < count and (make := next(sources, None)) is not None:
            if (proposal := make()) is not None:
                shortlist.setdefault(proposal.shape.counts, proposal)
        if not shortlist:
            raise UserError(
                f"`budget` can't be reached by any proposal. Received: {amount(self.cost.kind, self.limit)}."
            )
        return tuple(shortlist.values())

    def combined(self, ranked: Sequence[Proposal]) -> Proposal | None:
        """Combines the depths that did best with the tilt that did best.

        Args:
            ranked: Shapes of `shortlist`, best first.

        Returns:
            A further shape, or `None` if there is none: the best depths are all blocks, no tilt did best, or the shape
            is too expensive.
        """
        full = tuple(stage.blocks for stage in self.cost.space.stages)
        depths = next((one.depths for one in ranked if one.tilt == 0), full)
        tilt = next((one.tilt for one in ranked if one.tilt is not None and one.depths == full), 0.0)
        proposal = None if depths == full or tilt == 0 else self._uniform(depths, tilt)()
        known = {one.shape.counts for one in ranked}
        return None if proposal is None or proposal.shape.counts in known else proposal

    def _uniform(self, depths: Sequence[int], tilt: float) -> Callable[[], Proposal | None]:
        full = tuple(stage.blocks for stage in self.cost.space.stages)
        name = _TILTS[tilt] + ("" if depths == full else f" {'/'.join(map(str, depths))}")
        options = {"depths": depths, "tilt": tilt, "divisor": self.divisor}

        def make() -> Proposal | None:
            return self._make(
                name,
                lambda limit: uniform_shape(self.cost, limit=limit, fill=True, **options),
                cheapest=lambda: cheapest_uniform_shape(self.cost, **options),
                tilt=tilt,
            )

        return make

    def _least_damaged(self, number: int) -> Callable[[], Proposal | None]:
        if self.damage is None:
            return lambda: None
        name, spread = ("sensitivities", 0.0) if number == 1 else (f"sensitivities {number}", _SPREAD)
        options = {"spread": spread, "seed": [self.seed, number]}
        return lambda: self._make(name, lambda limit: least_damaged(self.cost, self.damage, limit=limit, **options))

    def _make(
        self,
        name: str,
        find: Callable[[int], Shape],
        *,
        cheapest: Callable[[], Shape] | None = None,
        tilt: float | None = None,
    ) -> Proposal | None:
        """Makes a proposal; `None` if shapes of its kind can't be cheap enough, though others may be."""
        try:
            return Proposal(name, find_within(find, self.cost, self.limit, self.meter, cheapest=cheapest)[0], tilt)
        except UserError:
            return None


def _in_turns(*sources: Iterable[Any]) -> Iterator[Any]:
    """Takes one element of each source in turns until all are empty.

    >>> list(_in_turns("abc", "x"))
    ['a', 'x', 'b', 'c']
    """
    empty = object()
    for row in itertools.zip_longest(*sources, fillvalue=empty):
        yield from (element for element in row if element is not empty)
