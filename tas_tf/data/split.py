"""Parts of a data set, stratified by class if images have classes."""

from collections.abc import Iterator

import numpy as np

from tas_tf.errors import UserError


def has_classes(labels: np.ndarray) -> bool:
    """Whether labels, `[n, ...]`, are class numbers of images."""
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)


def strata_of(labels: np.ndarray) -> np.ndarray:
    """Returns the groups whose proportions all parts of a data set keep: the classes; a single group without classes.

    Args:
        labels: Class numbers, integers `[n]`, or other labels, `[n, ...]`.

    Returns:
        Numbers of the groups, `[n]`.

    >>> strata_of(np.array([2, 0, 1])).tolist(), strata_of(np.array([[0.5], [1.5]])).tolist()
    ([2, 0, 1], [0, 0])
    """
    return labels if has_classes(labels) else np.zeros(len(labels), np.int64)


def stratified_halves(labels: np.ndarray, *, share: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits example indices in two, with each class in the same proportion.

    Class counts are rounded up or down so that the total is right as well.

    Args:
        labels: Integer labels, `[n]`.
        share: Share of the examples in the first part, above 0 and below 1.
        seed: Random seed.

    Returns:
        Two disjoint sorted int64 arrays that together hold `0 ... n - 1`.

    Raises:
        UserError: If `share` isn't between 0 and 1, or a part would be empty.
    """
    if not 0.0 < share < 1.0:
        raise UserError(f"`share` is out of range. Expected a number between 0 and 1. Received: {share}.")
    labels = np.asarray(labels)
    first = _pick(labels, round(len(labels) * share), seed=seed)
    second = np.setdiff1d(np.arange(len(labels)), first, assume_unique=True)
    if not len(first) or not len(second):
        raise UserError(
            f"`share` leaves one part empty. Expected both parts to hold examples. "
            f"Received: share {share} of {len(labels)} example(s)."
        )
    return first, second


def stratified_subset(labels: np.ndarray, *, count: int) -> np.ndarray:
    """Picks `count` example indices, always the same ones, keeping the proportions of the classes.

    Args:
        labels: Integer labels, `[n]`.
        count: Number of examples, from 1 to n.

    Returns:
        Sorted int64 array, `[count]`.

    Raises:
        UserError: If `count` isn't from 1 to n.
    """
    labels = np.asarray(labels)
    if not 1 <= count <= len(labels):
        raise UserError(
            f"`count` is out of range. Expected 1 to {len(labels)}, the number of examples. Received: {count}."
        )
    return _pick(labels, count, seed=0)


def _pick(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    members = list(_shuffled_members(labels, seed=seed))
    exact = np.array([len(rows) * count / len(labels) for rows in members])
    counts = np.floor(exact).astype(np.int64)
    # Round up the largest remainders: every class is off by less than one, and the total is exact.
    for extra in np.argsort(counts - exact, kind="stable")[: count - counts.sum()]:
        counts[extra] += 1
    picked = [rows[:number] for rows, number in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(picked)).astype(np.int64)


def _shuffled_members(labels: np.ndarray, *, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        yield generator.permutation(np.flatnonzero(labels == label))
