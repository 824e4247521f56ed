"""Finds out whether the outputs of a network fit the classes of data better in another order."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

# How much better classes must fit in another order. Untrained networks gain less.
_REORDERED = 0.3
# With fewer images of a class, chance alone fits classes in some order.
_PER_CLASS = 20


def better_order(table: np.ndarray, accuracy: float) -> tuple[list[int], float] | None:
    """The order of classes that a network's outputs fit clearly better than the given one.

    Args:
        table: Numbers of images, `[output, class]`.
        accuracy: Share of images that are right in the given order.

    Returns:
        The class that fits each output, and the share of images that are then right; `None` if no other order is
        clearly better, or if there are too few images to tell.

    Example:
        >>> better_order(np.array([[0, 30], [40, 0]]), 0.0)
        ([1, 0], 1.0)
        >>> better_order(np.array([[30, 10], [10, 30]]), 0.75) is None
        True
    """
    if table.sum() < _PER_CLASS * len(table):
        return None
    outputs, classes = linear_sum_assignment(table, maximize=True)
    share = float(table[outputs, classes].sum() / table.sum())
    return (classes.tolist(), share) if share > accuracy + _REORDERED else None


def count_answers(logits: np.ndarray, labels: np.ndarray, table: np.ndarray) -> None:
    """Adds a batch to a table of outputs and classes.

    Args:
        logits: Outputs, `[batch, classes]`, or `[batch, 1]` for a decision.
        labels: True classes, `[batch]`.
        table: Numbers of images so far, `[output, class]`, to add to.
    """
    said = logits.argmax(-1) if logits.shape[-1] > 1 else logits[:, 0] > 0
    np.add.at(table, (said.astype(np.int64), np.asarray(labels).reshape(-1).astype(np.int64)), 1)
