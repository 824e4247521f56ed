"""The best of several random shapes, by images that none of them was trained on."""

import dataclasses

import numpy as np
import pytest

from tas_tf.baselines.random_shapes import best_random_shape
from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.training.network import train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_space, tiny_task

SETTINGS = TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.05, seed=3)


@pytest.mark.slow
def test_the_best_by_held_out_images(monkeypatch):
    cost, task, strategy, tried = CostModel(tiny_space()), tiny_task(), make_strategy("one_device"), []
    limits = {"limit": cost.full // 2, "tolerance": cost.full // 20}

    def no_test(self, *args, **options):
        raise AssertionError("test images were touched")

    with monkeypatch.context() as patch:
        patch.setattr(Task, "test", no_test)
        best = best_random_shape(
            cost,
            task,
            SETTINGS,
            count=2,
            **limits,
            held_out_limit=60,
            strategy=strategy,
            verbose=0,
            on_tried=tried.append,
        )
    assert len({str(one.shape.to_json()) for one in tried}) == 2
    assert all(limits["limit"] - limits["tolerance"] <= cost(one.shape) <= limits["limit"] for one in tried)
    assert best.score == max(one.score for one in tried)
    assert tried[0].shape == baseline_shape("random", cost, **limits, seed=3)
    # The score of one of them, step by step.
    weights, held_out = task.halves(0.5)
    assert not set(weights) & set(held_out)
    result = train_network(
        cost.space, best.shape, dataclasses.replace(task, indices=weights), SETTINGS, strategy=strategy, verbose=0
    )
    images, labels = zip(*task.held_out(0.5, 60).as_numpy_iterator(), strict=True)
    predicted = result.model.predict(np.concatenate(images), verbose=0).argmax(-1)
    assert (predicted == np.concatenate(labels)).mean() == pytest.approx(best.score)
