"""Random small networks of every kind, each from one seed, and the checks that all of them must pass."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from benchmarks.comparison import Comparison
from benchmarks.random_ends import draw_inputs, draw_outputs
from benchmarks.random_parts import BLOCK_KINDS, Parts
from benchmarks.small_networks import count_macs, space_of
from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.expected_cost import ExpectedCost
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace

BATCH = 8


@dataclass(frozen=True)
class Case:
    """A network, the options of its search space, and a seed for shape, weights and images."""

    kind: str
    model: keras.Model
    options: dict[str, Any]
    seed: int


def draw_case(seed: int) -> Case:
    """Draws a network of a random kind, with options and a seed."""
    rng = random.Random(seed)
    kind = rng.choice(tuple(BLOCK_KINDS))
    model = draw_network(rng, kind)
    options = {
        "axes": rng.choice(["both"] * 8 + ["width", "depth"]),
        "width_divisor": rng.choice([1, 1, 1, 2, 4]),
        "couple_trunk": rng.choice([False, False, True]),
        "search_dense": rng.choice([False, True]),
    }
    return Case(kind, model, options, rng.randrange(1000))


def draw_network(rng: random.Random, kind: str) -> keras.Model:
    """Builds a network: inputs, a stem, groups of blocks (the first of the given kind), and outputs."""
    parts = Parts(rng)
    inputs, x = draw_inputs(rng, parts)
    x = parts.unit(parts.extra(x), parts.width())
    features = []
    for group in [kind] + rng.choices(tuple(BLOCK_KINDS), k=rng.randrange(2)):
        x = parts.extra(BLOCK_KINDS[group](parts, x))
        features.append(x)
    outputs = draw_outputs(rng, parts, inputs, features)
    return keras.Model(inputs if len(inputs) > 1 else inputs["images"], outputs, name=kind)


def can_be_searched(case: Case) -> bool:
    """Whether the network has anything to search; some networks need all their channels."""
    try:
        space_of(case.model, **case.options)
    except UserError as error:
        if not str(error).startswith("Nothing can be searched"):
            raise
        return False
    return True


def check(case: Case) -> None:
    """Asserts that a student builds, costs what the cost models say, and equals the supernet at one-hot choices."""
    space = space_of(case.model, **case.options)
    shape = draw_shape(space, case.seed)
    images = np.random.default_rng(case.seed).normal(size=(BATCH, *space.graph.input.shape[1:])).astype("float32")
    comparison = Comparison(space, images, seed=case.seed)
    student = comparison.student(shape)
    for kind, counted in (("macs", count_macs(student)), ("params", student.count_params())):
        cost = CostModel(space, kind)
        assert cost(shape) == counted, f"{kind}: {cost(shape)}, not {counted}"
        expected = float(ExpectedCost(cost)(*certain(space, shape))) * cost.full
        assert abs(expected - counted) <= 1e-4 * counted, f"expected {kind}: {expected}, not {counted}"
    comparison.check(shape, student)


def certain(space: SearchSpace, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Returns a shape as the probabilities of its widths and depths."""
    widths = [np.equal(unit.candidates, shape.widths[unit.name]) for unit in space.searched_units]
    depths = [np.equal(stage.candidates, shape.depths[stage.name]) for stage in space.searched_stages]
    return space.width_choices.pack(widths), space.depth_choices.pack(depths)


def draw_shape(space: SearchSpace, seed: int) -> Shape:
    """Returns a random shape, or occasionally the smallest or the full one."""
    if seed % 10 < 2:
        return Shape.full(space) if seed % 10 else Shape.smallest(space)
    return Shape.random(space, seed)
