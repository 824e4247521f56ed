"""The first pass over a user's data, which counts and checks labels and keeps no images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.data.labels import Labels
from tas_tf.data.stream import Stream, empty, endless
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective

#: Number of buckets that images fall into by their contents.
BUCKETS = 2**30
_BATCH = 1024
#: Images that are read again to see whether they change.
_COMPARED = 64
#: Data is assumed to repeat forever once it has this many images and each occurs this often on average.
_MANY, _REPEATS = 50_000, 8


@dataclass(frozen=True, eq=False)
class Survey:
    """The result of the first pass.

    Attributes:
        counts: Number of images of each class, by class number or name; empty if labels aren't classes of images.
        buckets: Buckets of all images, sorted, int64 `[num_examples]`.
        chance: Score of the best constant output, such as the share of the most frequent class.
        objective: What the outputs of the network mean, with losses that suit the labels, see `Objective.scaled`.
        varies: Whether the images are others when they are read again.
        reorders: Whether they come in another order, or are others, when they are read again.
    """

    counts: Mapping[int | str, int]
    buckets: np.ndarray
    chance: float
    objective: Objective
    varies: bool = False
    reorders: bool = False

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.buckets)

    def count_below(self, share: float) -> int:
        """Number of images in the first part of a split that gives it this share of the buckets."""
        return int(np.searchsorted(self.buckets, limit_of(share)))


def survey(stream: Stream, labels: Labels) -> Survey:
    """Reads a stream once, counts its classes and checks it.

    Raises:
        UserError: The stream is empty, endless or sorted by class, an image isn't finite, or labels are invalid.
    """
    examples = stream.examples().map(_read, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH)
    counts: Counter = Counter()
    buckets: list[np.ndarray] = []
    summaries: list[np.ndarray] = []
    previous, changes = None, 0
    for found, finite, label in examples.as_numpy_iterator():
        if not finite.all():
            raise UserError(f"`{stream.argument}` must have finite images. Received: NaN or infinity.")
        values = labels.values(label)
        if labels.are_classes:
            counts.update(values.tolist())
            changes += int((values[1:] != values[:-1]).sum()) + (previous is not None and previous != values[0])
            previous = values[-1]
        else:
            summaries.append(labels.summary(values))
        buckets.append(found)
        _check_end(stream, buckets)
    if not buckets:
        raise empty(stream.argument)
    read = np.concatenate(buckets)
    found = np.sort(read)
    if summaries:
        rows = np.concatenate(summaries)
        result = Survey({}, found, labels.objective.constant_score(rows), labels.objective.scaled(rows))
    else:
        result = Survey(dict(counts), found, max(counts.values()) / len(found), labels.objective)
    if not stream.is_mixed and changes < 2 * len(counts) and len(counts) > 1 and result.num_examples > stream.mixed:
        raise UserError(
            f"`{stream.argument}` must mix its classes. Received images sorted by class: use "
            f"`shuffle({result.num_examples})` before batching, or shuffle file names."
        )
    if stream.is_mixed:
        return result
    again = _read_again(stream)
    # Some images tell: data that is shuffled is so from its first image on.
    reorders = not np.array_equal(again, read[: len(again)])
    return replace(result, varies=not np.isin(again, found).all(), reorders=reorders)


def bucket_of(image: Any) -> tf.Tensor:
    """The bucket of an image, an int64 scalar from 0 to `BUCKETS` - 1 that depends only on the image's contents.

    Args:
        image: The image, or a tuple of all that the network takes.
    """
    contents = tf.strings.join([tf.io.serialize_tensor(part) for part in tf.nest.flatten(image)])
    return tf.strings.to_hash_bucket_fast(contents, BUCKETS)


def limit_of(share: float) -> int:
    """The first bucket of the second part, if the first part gets this share of the buckets."""
    return round(share * BUCKETS)


def _read(image: Any, label: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
    parts = [part for part in tf.nest.flatten(image) if part.dtype.is_floating]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in parts]) if parts else tf.constant(True)
    return bucket_of(image), finite, label


def _read_again(stream: Stream) -> np.ndarray:
    """The buckets of the first images of another pass."""
    again = stream.examples().take(_COMPARED).map(lambda image, label: bucket_of(image)).batch(_COMPARED)
    return np.concatenate([*again.as_numpy_iterator(), np.zeros(0, np.int64)])


def _check_end(stream: Stream, buckets: list[np.ndarray]) -> None:
    """Rejects data that repeats the same images over and over; checks whenever the number of images has doubled."""
    number = len(buckets)
    if number * _BATCH >= _MANY and number & (number - 1) == 0:
        seen = np.concatenate(buckets)
        if len(np.unique(seen)) * _REPEATS < len(seen):
            raise endless(stream.argument)
