"""Races of networks that lack something: normalisation, stages, choices of one kind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.importance.order import channel_order, reorder
from tas_tf.proposals.sensitivities import measure_sensitivities
from tas_tf.proposals.shortlist import Proposer
from tas_tf.race.race import run_race
from tas_tf.race.settings import RaceSettings
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import logits_of
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_network, tiny_task


def plain() -> keras.Model:
    """Neither normalisation nor blocks."""
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="one")(images)
    x = layers.Conv2D(12, 3, activation="relu", name="two")(x)
    return keras.Model(images, layers.Dense(10, name="classifier")(layers.Flatten()(x)), name="plain")


def frozen() -> keras.Model:
    """Normalisation that wasn't trained with the network."""
    model = tiny_network(activation=None)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return model


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (plain, {}),
        pytest.param(frozen, {}, marks=pytest.mark.slow),
        pytest.param(tiny_network, {"axes": "width"}, marks=pytest.mark.slow),
        (tiny_network, {"axes": "depth"}),
        pytest.param(tiny_network, {"couple_trunk": True}, marks=pytest.mark.slow),
    ],
)
def test_it_finds_a_student(make, options):
    keras.utils.set_random_seed(0)
    model, task = make(), tiny_task()
    space = SearchSpace.from_model(model, **options)
    cost = CostModel(space)
    model = reorder(model, space, channel_order("l1", model, space))
    limit = int(0.7 * cost.full)
    damage = measure_sensitivities(model, space, task.calibration(50, 1), task.objective)
    assert np.isfinite(damage.widths).all()
    assert np.isfinite(damage.depths).all()
    proposer = Proposer(cost, limit, damage)
    result = run_race(
        proposer.shortlist(3),
        task,
        space,
        TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.01),
        RaceSettings(rate_factors=(1.0,)),
        model=model,
        teacher=logits_of(model, space),
        strategy=make_strategy("one_device"),
        combine=proposer.combined,
        verbose=0,
    )
    assert cost(result.winner.shape) <= limit
    assert np.isfinite([lap.loss for lap in result.laps]).all()
    assert all(np.isfinite(weight).all() for weight in result.network.get_weights())
