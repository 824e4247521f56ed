"""Costs for tests that no network has by itself."""

import dataclasses

import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.terms import Tiles, mac_terms
from tas_tf.space.space import SearchSpace

_TILES = (Tiles(), Tiles(4, 4), Tiles(2, 8), Tiles(8, 8))


def tiled_cost(space: SearchSpace, seed: int = 0) -> CostModel:
    """A latency whose kernels count channels in tiles of several kinds, with a constant for each layer."""
    rng = np.random.default_rng(seed)
    terms = []
    for term in mac_terms(space):
        read, make = (_TILES[number] for number in rng.integers(len(_TILES), size=2))
        terms += [
            dataclasses.replace(term, read_tiles=read, make_tiles=make),
            dataclasses.replace(term, factor=int(rng.integers(1, 10**6)), reads=(), makes=()),
        ]
    return CostModel(space, "latency", terms=terms)
