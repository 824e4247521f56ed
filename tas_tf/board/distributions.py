"""Distributions of widths and depths over time, as histograms of their candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import metadata

from tas_tf.space.choices import ChoiceTable


def write_distributions(axis: str, probabilities: np.ndarray, choices: ChoiceTable, step: int) -> None:
    """Writes a histogram for each choice, `axis/name`, to the default writer.

    TensorBoard would count values itself; here, the candidates' probabilities are the counts.

    Args:
        axis: `widths` or `depths`.
        probabilities: Probabilities, `[choices, candidates]`.
        choices: Units or stages in the order of the rows.
        step: Epoch.
    """
    description = metadata.create_summary_metadata(display_name=None, description=None)
    wrapped = tf.compat.v1.SummaryMetadata.FromString(description.SerializeToString())
    for name, candidates, chances in zip(choices.names, choices.candidates, choices.unpack(probabilities), strict=True):
        tf.summary.write(f"{axis}/{name}", buckets(candidates, chances), step=step, metadata=wrapped)


def buckets(candidates: Sequence[int], chances: Sequence[float]) -> np.ndarray:
    """Buckets of a histogram: left and right edge, and probability.

    Edges lie halfway between candidates, and equally far on the outer sides of the first and the last.

    Args:
        candidates: At least two counts, ascending.
        chances: Their probabilities.

    Returns:
        float64 `[candidates, 3]`.

    >>> buckets([4, 8, 10], [0.5, 0.25, 0.25])
    array([[ 2.  ,  6.  ,  0.5 ],
           [ 6.  ,  9.  ,  0.25],
           [ 9.  , 11.  ,  0.25]])
    """
    counts = np.asarray(candidates, np.float64)
    middles = (counts[:-1] + counts[1:]) / 2
    edges = np.concatenate([[2 * counts[0] - middles[0]], middles, [2 * counts[-1] - middles[-1]]])
    return np.stack([edges[:-1], edges[1:], np.asarray(chances, np.float64)], axis=1)
