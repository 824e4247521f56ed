"""A network with random weights and its search space."""

import keras
import pytest

from tas_tf.space.space import SearchSpace
from tests.digits import tiny_network
from tests.networks import randomize


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return randomize(tiny_network())


@pytest.fixture(scope="module")
def space(network) -> SearchSpace:
    return SearchSpace.from_model(network)
