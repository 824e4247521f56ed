"""Channel-wise interpolation, against adaptive average pooling written out in NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.space.candidates import width_candidates
from tas_tf.supernet.layers.interpolation import widening_taps
from tests.supernets import interpolation_matrix

FULL_WIDTHS = (16, 24, 32, 64, 960)


def adaptive_average(width, target):
    """Adaptive average pooling of the unit vectors: the matrix, one window at a time."""
    matrix = np.zeros((width, target))
    for i in range(target):
        start, end = int(np.floor(i * width / target)), int(np.ceil((i + 1) * width / target))
        matrix[start:end, i] = 1 / (end - start)
    return matrix


@pytest.mark.parametrize("full", FULL_WIDTHS)
def test_matrix_is_adaptive_average_pooling(full):
    for width, target in itertools.product(width_candidates(full), repeat=2):
        wanted = adaptive_average(width, target)
        np.testing.assert_allclose(interpolation_matrix(width, target), wanted, rtol=1e-6, err_msg=f"{width}->{target}")


@pytest.mark.parametrize("full", FULL_WIDTHS)
def test_taps_are_the_same_map_wherever_widths_grow(full):
    pairs = [pair for pair in itertools.product(width_candidates(full), repeat=2) if pair[0] <= pair[1]]
    widths, targets = np.array(pairs, np.int32).T
    inputs, shares = widening_taps(tf.constant(widths[:, None]), tf.constant(targets), full)
    assert inputs.shape == shares.shape == (len(pairs), 1, 2, full)
    for row, (width, target) in enumerate(pairs):
        matrix = np.zeros((full, full))
        for tap in range(2):
            np.add.at(matrix, (inputs.numpy()[row, 0, tap], np.arange(full)), shares.numpy()[row, 0, tap])
        wanted = np.zeros((full, full))
        wanted[:width, :target] = adaptive_average(width, target)
        np.testing.assert_allclose(matrix, wanted, rtol=1e-6, err_msg=f"{width}->{target}")
