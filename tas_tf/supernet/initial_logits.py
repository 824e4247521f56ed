"""Starts the architecture's logits where the expected cost is the budget."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.supernet.build import Supernet

_STEEPEST = 40.0


def lean_towards_budget(supernet: Supernet, expected_cost: ExpectedCost, share: float) -> float:
    """Adds to every logit that is trained a multiple of how wide or deep its candidate is, alike for all choices.

    Args:
        supernet: Its logits are changed.
        expected_cost: What counts.
        share: The budget as a share of the unpruned network's cost.

    Returns:
        The expected cost reached, a share; the nearest where the budget is out of reach.
    """
    gates = supernet.gates
    every = [
        *((unit["candidates"], variable) for unit, variable in zip(gates.units, gates.width_logits, strict=True)),
        *((stage["depths"], variable) for stage, variable in zip(gates.stages, gates.depth_logits, strict=True)),
    ]
    choices = [(counts, variable) for counts, variable in every if variable.trainable]
    start = [np.array(variable) for _, variable in choices]
    sizes = [np.array(counts, np.float32) / counts[-1] for counts, _ in choices]
    evaluate = tf.function(lambda: expected_cost(*gates.probabilities()))

    def cost_at(slope: float) -> float:
        for (_, variable), own, size in zip(choices, start, sizes, strict=True):
            variable.assign(own + slope * size)
        return float(evaluate())

    low, high = -_STEEPEST, _STEEPEST
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost_at(middle) < share else (low, middle)
    return cost_at((low + high) / 2)
