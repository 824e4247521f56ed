"""Divides the calls of a model into segments, so that recomputing them one by one takes least memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from tas_tf.training.calls import ModelCalls, size_of, tensors_in
from tas_tf.training.kept import kept_by_calls

# Largest number of places where segments may end.
_MOST_ENDS = 256
# Halvings of the range in which the lowest peak is looked for: to a thousandth.
_HALVINGS = 10
#: Tensors in work while the gradient of a call is computed, in times what it reads and makes: gradients of these, and
#: intermediate results.
_IN_WORK = 2
#: By start and end of a segment: most bytes at a time, and bytes that it passes on to later calls.
_Costs = Mapping[tuple[int, int], tuple[float, float]]


class Flow:
    """How many bytes the calls of a model keep for the backward pass, work on, and pass on to later calls.

    All bytes are those of a single image.

    Args:
        model: The calls of a model.

    Example:
        >>> import keras
        >>> from tas_tf.training.calls import record_calls
        >>> x = images = keras.Input((16, 16, 8))
        >>> for _ in range(12):
        ...     x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        >>> flow = Flow(record_calls(keras.Model(images, x)))
        >>> flow.best_ends()
        (5, 9, 12)
        >>> [max(flow.backward_pass(ends)) for ends in ([12], [5, 9, 12])]
        [131072.0, 73728.0]
    """

    def __init__(self, model: ModelCalls) -> None:
        self.length = len(model.calls)
        self._kept = kept_by_calls(model)
        self._makes = [[id(one) for one in call.makes] for call in model.calls]
        self._bytes = {id(one): size_of(one) for call in model.calls for one in (*call.reads, *call.makes)}
        self._work = [_IN_WORK * sum(map(size_of, (*call.reads, *call.makes))) for call in model.calls]
        # Places of the calls that make and last read each tensor. The model's inputs are made by none.
        self._made = {key: place for place, keys in enumerate(self._makes) for key in keys}
        self._last = {id(one): place for place, call in enumerate(model.calls) for one in call.reads}
        self._last |= {id(one): self.length for one in tensors_in(model.outputs)}

    def best_ends(self) -> tuple[int, ...]:
        """Divides the calls into segments where few tensors pass, so that the peak of memory is lowest.

        While a segment is recomputed and its gradients are computed, memory holds what its calls keep, and all tensors
        that pass from the segments before it to later calls. In a large network, not all places are considered.

        Returns:
            For each segment, the number of calls up to its end. The last segment needn't be recomputed.

        Reference:
            Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174
        """
        ends = [*self._narrows(), self.length]
        costs = self._costs(ends)
        low, high, best = 0.0, costs[0, self.length][0], (self.length,)
        for _ in range(_HALVINGS):
            limit = (low + high) / 2
            found = _within(limit, costs, ends)
            low, high, best = (limit, high, best) if found is None else (low, limit, found)
        return best

    def backward_pass(self, ends: Sequence[int]) -> list[float]:
        """Bytes in memory while the gradient of each call is computed, if calls are recomputed in segments.

        Args:
            ends: Ends of the segments; only the number of calls if nothing is recomputed.
        """
        before, found = 0.0, []
        for start, end in itertools.pairwise([0, *ends]):
            found += [before + one for one in self._in_work(start, end)]
            before += self._passed_on(start, end)
        return found

    def fixed(self, ends: Sequence[int]) -> float:
        """Bytes that the calls of a segment keep however many images there are, of the segment where these are most.

        Args:
            ends: Ends of the segments, as in `backward_pass`.
        """
        return max(sum(one.fixed for one in self._kept[start:end]) for start, end in itertools.pairwise([0, *ends]))

    def _narrows(self) -> list[int]:
        """Places between calls where segments may end: in each stretch of the network, the one where least passes."""
        changes = [0] * (self.length + 2)
        for key, made in self._made.items():
            changes[made + 1] += self._bytes[key]
            changes[max(made, self._last.get(key, made)) + 1] -= self._bytes[key]
        passing = list(itertools.accumulate(changes))
        stretch = -(-self.length // _MOST_ENDS)
        places = range(1, self.length)
        return [min(places[at : at + stretch], key=passing.__getitem__) for at in range(0, len(places), stretch)]

    def _costs(self, ends: Sequence[int]) -> _Costs:
        """Costs of all segments with these ends."""
        found = {}
        for start in (0, *ends[:-1]):
            passed: set[int] = set()
            most, place = 0.0, start
            work = self._in_work(start, self.length)
            for end in ends:
                if end > start:
                    most = max(most, *itertools.islice(work, end - place))
                    passed |= set(itertools.chain.from_iterable(self._makes[place:end]))
                    passed = {key for key in passed if self._last.get(key, -1) >= end}
                    found[start, end] = most, self._sum(passed)
                    place = end
        return found

    def _in_work(self, start: int, end: int) -> Iterator[float]:
        """Bytes while the gradient of each call of a segment is computed, apart from what earlier segments pass on."""
        kept: set[int] = set()
        bytes_ = 0.0
        for call in range(start, end):
            # What calls before the segment made is kept anyway, as they passed it on.
            new = {key for key in self._kept[call].tensors if self._made.get(key, -1) >= start} - kept
            bytes_ += self._kept[call].inside + self._sum(new)
            kept |= new
            yield bytes_ + self._work[call]

    def _passed_on(self, start: int, end: int) -> float:
        """Bytes that a segment makes for later calls."""
        made = itertools.chain.from_iterable(self._makes[start:end])
        return self._sum({key for key in made if self._last.get(key, -1) >= end})

    def _sum(self, keys: set[int]) -> float:
        return float(sum(map(self._bytes.__getitem__, keys)))


def _within(limit: float, costs: _Costs, ends: Sequence[int]) -> tuple[int, ...] | None:
    """The division whose peak is within a limit, and that passes fewest bytes on; `None` without any."""
    passed: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for end in ends:
        ways = [
            (before + costs[start, end][1], (*chosen, end))
            for start, (before, chosen) in passed.items()
            if before + costs[start, end][0] <= limit
        ]
        if ways:
            passed[end] = min(ways)
    return passed[ends[-1]][1] if ends[-1] in passed else None
