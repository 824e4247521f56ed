from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from tas_tf.cost.cost_model import CostModel
from tas_tf.proposals.sensitivities import Sensitivities, least_damaged, measure_sensitivities
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tas_tf.training.distill import Recalibration
from tas_tf.zoo.loading import load_file
from tests.digits import CLASSES, tiny_task


@pytest.fixture(scope="module")
def model(trained_tiny):
    return load_file(trained_tiny)


def test_damage_is_the_divergence_of_the_smaller_network(model):
    space, images = SearchSpace.from_model(model), next(iter(tiny_task().calibration(100, 1)))[0]
    damage = measure_sensitivities(model, space, [(images, None)], CLASSES)
    full = Shape.full(space)

    def outputs(shape: Shape) -> np.ndarray:
        network = build_student(space, shape, logits=True)
        inherit_weights(network, model, space, shape)
        Recalibration(network)([(images, None)])  # on a single batch: the statistics of that batch
        return log_softmax(np.asarray(network(images, training=False)) / 4, axis=-1)

    def divergence(shape: Shape) -> float:
        want = outputs(full)
        return 16 * (np.exp(want) * (want - outputs(shape))).sum(-1).mean()

    rows = space.width_choices.unpack(damage.widths)
    assert len(rows) == len(space.searched_units) == 5
    for unit, row in list(zip(space.searched_units, rows, strict=True))[::3]:
        narrowest = replace(full, widths={**full.widths, unit.name: unit.candidates[0]})
        widest = replace(full, widths={**full.widths, unit.name: unit.candidates[-2]})
        assert row[-1] == 0
        assert row[-2] == pytest.approx(divergence(widest), rel=0.02, abs=1e-4)
        assert row[0] >= divergence(narrowest) * 0.98
        assert all(np.diff(row) <= 0)
    (row,) = space.depth_choices.unpack(damage.depths)
    assert row.tolist() == [pytest.approx(divergence(replace(full, depths={"stage_1": 1})), rel=0.02), 0]


def test_the_shape_of_least_damage_within_the_budget(model):
    space = SearchSpace.from_model(model)
    cost, rng = CostModel(space), np.random.default_rng(0)
    widths = np.sort(rng.uniform(0, 3, space.width_choices.shape))[:, ::-1]
    depths = np.array([[0.4, 0.0]])
    damage, limit = Sensitivities(widths, depths), cost.full // 2
    shape = least_damaged(cost, damage, limit=limit)

    def total(one: Shape) -> float:
        """Straight from the definition; a dropped block does no damage by its widths."""
        dropped = one.depths["stage_1"] == 1
        return depths[0, 0] * dropped + sum(
            widths[row, unit.candidates.index(one.widths[unit.name])]
            for row, unit in enumerate(space.searched_units)
            if not (dropped and unit.name.startswith("block2"))
        )

    assert limit * 49 // 50 <= cost(shape) <= limit
    others = [Shape.random(space, seed) for seed in range(3000)]
    rivals = [total(one) for one in others if limit * 49 // 50 <= cost(one) <= limit]
    assert len(rivals) > 20
    assert total(shape) <= min(rivals) + 1e-9


def test_perturbed_shapes_differ_and_follow_the_seed(model):
    space = SearchSpace.from_model(model)
    cost = CostModel(space)
    damage = Sensitivities(
        np.tile(np.linspace(2, 0, space.width_choices.longest), (len(space.searched_units), 1)), np.array([[1.0, 0.0]])
    )
    shapes = [least_damaged(cost, damage, limit=cost.full // 2, spread=0.8, seed=[0, one]) for one in (1, 1, 2, 3, 4)]
    assert shapes[0] == shapes[1]
    assert len({str(shape.widths) for shape in shapes}) >= 3
    assert all(cost(shape) <= cost.full // 2 for shape in shapes)
