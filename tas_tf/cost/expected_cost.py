"""The expected cost of a distribution over shapes, as a differentiable function of the probabilities."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel, summands
from tas_tf.cost.terms import SINGLE, Tiles
from tas_tf.space.channels import Segment


class ExpectedCost:
    """Computes the expected cost of independent choices, as a share of the unpruned network's cost.

    The expected cost equals the exact cost if every distribution is one-hot. The expectation of a product of two
    widths is taken as the product of their means. A block is weighted by the probability that its stage is deep enough
    to include it, and a projection by the probability that the widths on its two sides differ.

    Reference:
        Dong and Yang 2019, section 3.3, https://arxiv.org/abs/1905.09717
    """

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        space = self._space = cost.space
        self._unit_row, self._stage_row = space.width_choices.row, space.depth_choices.row
        self._candidates = space.width_choices.table.astype(np.float32)
        self._factors = (cost.factors / cost.full).astype(np.float32)
        self._differing = [place for place, term in enumerate(cost.terms) if term.differ]
        self._prepare_presence()
        self._prepare_pairs()

    def __call__(self, width_probabilities: tf.Tensor, depth_probabilities: tf.Tensor) -> tf.Tensor:
        """Computes the expected cost, a scalar share of the unpruned network's cost.

        Args:
            width_probabilities: `[units, candidates]`, padded with 0, in the order of the space's searched units.
            depth_probabilities: `[stages, candidates]`, padded with 0, in the order of the space's searched stages.
        """
        present = self._presence(depth_probabilities)
        if self._differing:
            present *= self._difference(width_probabilities, depth_probabilities)
        cost, probabilities = self.cost, (width_probabilities, depth_probabilities)
        reads, makes = (
            self._channels(form, tiles, *probabilities)
            for form, tiles in ((cost.reads, cost.read_tiles), (cost.makes, cost.make_tiles))
        )
        return tf.reduce_sum(summands(self._factors, reads, makes, present))

    def _channels(self, form: np.ndarray, tiles: np.ndarray, widths: tf.Tensor, depths: tf.Tensor) -> tf.Tensor:
        """Mean channels on one side of all terms, in whole tiles, `[terms]`.

        Where channels come from several units, the mean of their sum is rounded up, with the gradient of the sum: the
        tiles of a sum of random numbers have no simple mean. If every distribution is one-hot, both are exact.
        """
        linear = tf.linalg.matvec(form.astype(np.float32), self._sizes(widths, depths, SINGLE), transpose_a=True)
        if (tiles == 1).all():
            return linear
        single = ((form[:-1] == 1).sum(0) == 1) & ((form != 0).sum(0) == 1)
        counted = tf.where(tiles[1] == 1, linear, _count_tiled(linear, *tiles.astype(np.float32)))
        result = linear + tf.stop_gradient(counted - linear)
        for low, high in sorted(set(zip(*tiles[:, single].tolist(), strict=True)) - {(1, 1)}):
            sums = tf.linalg.matvec(
                form.astype(np.float32), self._sizes(widths, depths, Tiles(low, high)), transpose_a=True
            )
            result = tf.where(single & (tiles[0] == low) & (tiles[1] == high), sums, result)
        return result

    def _sizes(self, widths: tf.Tensor, depths: tf.Tensor, tiles: Tiles) -> tf.Tensor:
        """Mean widths of units and of stages' outputs, in whole tiles, and a constant 1: `[sources + 1]`."""
        searched = tf.unstack(tf.reduce_sum(widths * tiles.count(self._candidates), -1), num=len(self._candidates))
        sizes = [
            searched[self._unit_row[unit.name]]
            if unit.name in self._unit_row
            else tf.constant(float(tiles.count(unit.width)))
            for unit in self._space.units
        ]
        for stage in self._space.stages:
            if any(len(self._space.segments[end]) != 1 for end in stage.ends):
                sizes.append(tf.constant(0.0))  # no segment has this stage as its source
                continue
            ends = [self._source_size(sizes, self._space.segments[end][0], tiles) for end in self._ends(stage)]
            if stage.name in self._stage_row:
                chances = depths[self._stage_row[stage.name], : len(ends)]
                sizes.append(tf.reduce_sum(chances * tf.stack(ends)))
            else:
                sizes.append(ends[-1])
        return tf.stack([*sizes, tf.constant(1.0)])

    def _ends(self, stage) -> list[str]:
        return [stage.ends[depth - 1] for depth in stage.candidates]

    def _source_size(self, sizes: list[tf.Tensor], segment: Segment, tiles: Tiles) -> tf.Tensor:
        if segment.source is None:
            return tf.constant(float(tiles.count(segment.width)))
        size, scale = sizes[self.cost.sources[segment.source]], self.cost.scale(segment)
        return size if scale == 1 else size * scale

    # Presence of blocks, [terms]: a constant plus a matrix applied to the flat depth probabilities.

    def _prepare_presence(self) -> None:
        chances = np.zeros((*self._space.depth_choices.shape, len(self.cost.terms)), np.float32)
        always = np.ones(len(self.cost.terms), np.float32)
        for place, number in enumerate(self.cost.block_number):
            if number == 1:
                continue
            stage = self._space.stages[self.cost.block_stage[place]]
            if stage.name not in self._stage_row:
                always[place] = float(stage.candidates[0] >= number)
                continue
            always[place] = 0.0
            for index, depth in enumerate(stage.candidates):
                chances[self._stage_row[stage.name], index, place] = float(depth >= number)
        self._chances, self._always = chances.reshape(-1, len(self.cost.terms)), always

    def _presence(self, depths: tf.Tensor) -> tf.Tensor:
        return self._always + tf.linalg.matvec(self._chances, tf.reshape(depths, [-1]), transpose_a=True)

    # Projections: P(differ) of two sources; a stage is one of its ends, each with its chance.

    def _prepare_pairs(self) -> None:
        pairs = [(place, sides) for place in self._differing for sides in self.cost.terms[place].differ]
        cases = [
            (pair, factors, one, other)
            for pair, (_, sides) in enumerate(pairs)
            for factors, one, other in self._expand(*sides)
            if one != other  # the same channels never differ
        ]
        row_of = self._prepare_distributions({segment for *_, one, other in cases for segment in (one, other)})
        num_rows, longest = self._space.depth_choices.shape
        always = num_rows * longest  # index of a constant 1 that follows the depth probabilities
        chances = [[self._stage_row[stage] * longest + index for stage, index in factors] for _, factors, *_ in cases]
        deepest = max((len(flat) for flat in chances), default=1) or 1
        self._pair_chances = np.array([flat + [always] * (deepest - len(flat)) for flat in chances], np.int32)
        self._pair_chances = self._pair_chances.reshape(-1, deepest)
        self._lefts = np.array([row_of[one] for *_, one, _ in cases], np.int32)
        self._rights = np.array([row_of[other] for *_, other in cases], np.int32)
        self._owners = np.array([pair for pair, *_ in cases], np.int32)
        self._pair_terms = np.array([place for place, _ in pairs], np.int32)

    def _prepare_distributions(self, segments: set[Segment]) -> dict[Segment, int]:
        """Lists the segments whose widths have distributions, searched ones first, and returns each segment's row."""
        searched = [segment for segment in segments if segment.source in self._unit_row]
        widths = {
            segment: [
                width * segment.width // self._space.full_width(segment.source)
                for width in self._space.unit[segment.source].candidates
            ]
            for segment in searched
        }
        values = sorted({segment.width for segment in segments}.union(*widths.values()))
        column = {value: place for place, value in enumerate(values)}
        self._row_units = np.array([self._unit_row[segment.source] for segment in searched], np.int32)
        self._to_values = np.zeros((len(searched), self._candidates.shape[1], len(values)), np.float32)
        for row, segment in enumerate(searched):
            for index, width in enumerate(widths[segment]):
                self._to_values[row, index, column[width]] = 1.0
        # One row for each fixed width.
        self._certain = np.eye(len(values), dtype=np.float32)
        fixed = {segment: len(searched) + column[segment.width] for segment in segments}
        return fixed | {segment: row for row, segment in enumerate(searched)}

    def _expand(self, left: Segment, right: Segment, factors: tuple = ()):
        """Resolves stages: yields the depths of each case, with the two units or constants that they lead to."""
        sides = (left, right)
        if left == right:
            yield factors, left, left
            return
        stages = [segment.source for segment in sides if segment.source in self._space.stage]
        if not stages:
            yield factors, left, right
            return
        # The later stage is resolved first, because its blocks may end in the output of the earlier one.
        later = max(stages, key=self.cost.sources.__getitem__)
        stage = self._space.stage[later]
        for index, end in enumerate(self._ends(stage)):
            inner = self._space.segments[end][0]
            one, other = (inner if segment.source == later else segment for segment in sides)
            more = ((later, index),) if later in self._stage_row else ()
            yield from self._expand(one, other, (*factors, *more))

    def _difference(self, widths: tf.Tensor, depths: tf.Tensor) -> tf.Tensor:
        """Probability that the two sides of a projection differ, `[terms]`; 1 for all other terms."""
        searched = tf.einsum("rc,rcv->rv", tf.gather(widths, self._row_units), self._to_values)
        distributions = tf.concat([searched, self._certain], 0)
        chances = tf.concat([tf.reshape(depths, [-1]), [1.0]], 0)
        case = tf.reduce_prod(tf.gather(chances, self._pair_chances), -1)
        same = tf.reduce_sum(tf.gather(distributions, self._lefts) * tf.gather(distributions, self._rights), -1)
        pairs = tf.math.unsorted_segment_sum(case * (1.0 - same), self._owners, len(self._pair_terms))
        # Sides with several segments differ unless all their segments agree.
        agree = tf.tensor_scatter_nd_update(
            tf.ones([len(self.cost.terms)]), np.array(self._differing)[:, None], tf.zeros([len(self._differing)])
        )
        alike = tf.math.unsorted_segment_prod(1.0 - pairs, self._pair_terms, len(self.cost.terms))
        return 1.0 - alike * (1.0 - agree)


def _count_tiled(channels: tf.Tensor, smallest: np.ndarray, largest: np.ndarray) -> tf.Tensor:
    """`tas_tf.cost.terms.count_tiled` of tensors; rounding errors don't start another tile."""
    channels = channels - 1e-3
    doublings = tf.math.ceil(tf.math.log(tf.maximum(channels, 1.0 - 1e-3) / smallest) / np.log(2.0))
    small = smallest * 2.0 ** tf.maximum(doublings, 0.0)
    return tf.where(channels > 0.0, tf.minimum(small, tf.math.ceil(channels / largest) * largest), 0.0)
