"""Initialises the architecture logits so that the expected cost equals the budget."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.supernet.build import Supernet

_STEEPEST = 40.0


def lean_towards_budget(supernet: Supernet, expected_cost: ExpectedCost, share: float) -> float:
    """Adds a multiple of each candidate's relative size to its trainable logit, with one factor for all choices.

    Args:
        supernet: Supernet whose logits are changed.
        expected_cost: Expected cost to match.
        share: Budget as a share of the unpruned network's cost.

    Returns:
        The expected cost reached, as a share. If the budget is out of reach, this is the closest possible cost.
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
