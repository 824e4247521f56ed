"""Widths, taps and depth matrices of a sample, against loops in NumPy."""

import numpy as np
import tensorflow as tf

from tas_tf.supernet.layers.plan import ChannelPlan
from tests.supernets import interpolation_matrix

UNITS = [
    {"name": "a", "width": 8, "candidates": [2, 4, 8]},
    {"name": "b", "width": 5, "candidates": [1, 5]},
    {"name": "c", "width": 8, "candidates": [3, 5, 6, 8]},
]
STAGES = [
    {"name": "alike", "width": 8, "ends": ["a"], "depths": [1, 2]},
    {"name": "mixed", "width": 8, "ends": ["a", "c", "all_8"], "depths": [1, 2, 3]},
    {"name": "later", "width": 8, "ends": ["mixed", "c"], "depths": [1, 3]},
]


def plan(indices, weights, depths):
    layer = ChannelPlan(UNITS, STAGES, {"all_8": 8})
    planned = layer((tf.constant(indices), tf.constant(weights, tf.float32), tf.constant(depths, tf.float32)))
    return layer, planned


def matrix_of(taps, channels):
    """The sum of all taps, and each candidate's own."""
    reads, moves, shares = (part.numpy() for part in taps)
    whole = np.zeros((channels, channels))
    by_candidate = {}
    for (candidate, read), (start, end), share in zip(reads, moves, shares, strict=True):
        assert read == start
        whole[start, end] += share
        by_candidate.setdefault(candidate, np.zeros((channels, channels)))[start, end] += share
    return whole, by_candidate


def test_targets_taps_and_stages():
    indices = [[0, 1], [1, 0], [3, 2]]
    weights = [[0.25, 0.75], [1.0, 0.0], [0.0, 1.0]]
    depths = [[0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    layer, planned = plan(indices, weights, depths)
    assert list(layer.sources) == ["a", "b", "c", "alike", "mixed", "later", "all_8"]
    # A width without weight doesn't count; nor does a depth: `mixed` is 6 wide, not 8.
    np.testing.assert_array_equal(planned["active"], [4, 5, 6, 4, 6, 6, 8])
    for row, unit in enumerate(UNITS):
        _, by_candidate = matrix_of(planned["units"][unit["name"]], unit["width"])
        target = planned["active"].numpy()[row]
        for index, weight in zip(indices[row], weights[row], strict=True):
            width = unit["candidates"][index]
            wanted = np.zeros((unit["width"], unit["width"]))
            if weight:
                wanted[:width, :target] = weight * interpolation_matrix(width, target)
            np.testing.assert_allclose(by_candidate[index], wanted, rtol=1e-6, err_msg=unit["name"])
    assert len(planned["stages"]["alike"]) == 1
    np.testing.assert_allclose(planned["stages"]["alike"][0], [0.4, 0.6])
    shares, matrices = planned["stages"]["mixed"]
    np.testing.assert_allclose(shares, [0.5, 0.5, 0.0])
    for place, (width, share) in enumerate([(4, 0.5), (6, 0.5), (8, 0.0)]):
        wanted = np.zeros((8, 8))
        if share:
            wanted[:width, :6] = share * interpolation_matrix(width, 6)
        np.testing.assert_allclose(matrices[place], wanted, rtol=1e-6)


def test_without_anything_to_choose_from():
    layer = ChannelPlan([], [], {})
    planned = layer((tf.zeros([1, 1], tf.int32), tf.ones([1, 1]), tf.ones([1, 1])))
    assert planned["active"].shape == (0,)
    assert planned["units"] == planned["stages"] == {}


def test_config_round_trip():
    layer, _ = plan([[0], [0], [0]], [[1.0], [1.0], [1.0]], [[1.0, 0, 0]] * 3)
    assert ChannelPlan.from_config(layer.get_config()).get_config() == layer.get_config()
