"""Logs of a search, read as TensorBoard reads them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.budget import Budget
from tas_tf.searching.logs import SearchSummaries
from tas_tf.searching.run import run_search
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.strategy import make_strategy
from tests.digits import tiny_search, tiny_space, tiny_task
from tests.events import read_events


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    result = run_search(
        tiny_space(),
        tiny_task(),
        Budget.parse("macs:0.5"),
        tiny_search(epochs=2),
        strategy=make_strategy("one_device"),
        callbacks=lambda monitor: [TensorBoardScalars(logs), SearchSummaries(logs, monitor)],
        verbose=0,
    )
    return result, logs


def read(folder: Path) -> dict[str, list[np.ndarray]]:
    """Values by tag, one for each epoch."""
    return {tag: [value for _, value in found] for tag, found in read_events(folder).items()}


def test_losses_accuracies_costs_temperature_and_entropies(searched):
    result, logs = searched
    train, validation = read(logs / "train"), read(logs / "validation")
    for tag in ("loss/weight_loss", "loss/arch_loss", "loss/cost_loss", "score/weight_accuracy"):
        assert len(train[tag]) == 2, tag
        assert np.isfinite(train[tag]).all()
    np.testing.assert_allclose(np.ravel(train["search/temperature"]), [5.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(validation["score/accuracy"]), result.history["held_out_accuracy"], rtol=1e-6)
    assert float(validation["search/width_entropy"][-1]) == pytest.approx(result.metrics["width_entropy"], rel=1e-6)
    assert float(validation["search/depth_entropy"][-1]) == pytest.approx(result.metrics["depth_entropy"], rel=1e-6)
    assert {tag for tag in train if tag.startswith("learning_rate/")} == {
        "learning_rate/weights",
        "learning_rate/architecture",
    }


def test_costs_stand_beside_the_budget(searched):
    result, logs = searched
    found = read(logs / "architecture")
    costs = {tag.split("/")[1]: np.ravel(values) for tag, values in found.items() if tag.startswith("cost_in_macs/")}
    assert set(costs) == {"budget", "expected", "argmax", "decoded"}
    assert costs["budget"].tolist() == [result.metrics["budget_macs"]] * 2
    np.testing.assert_allclose(costs["expected"], result.history["expected_macs"], rtol=1e-6)
    np.testing.assert_allclose(costs["argmax"], result.history["argmax_macs"], rtol=1e-6)
    assert costs["decoded"][-1] == pytest.approx(result.metrics["shape_macs"], rel=1e-6)


def test_distributions_are_images_and_the_shape_is_a_text(searched):
    result, logs = searched
    found = read(logs / "architecture")
    for tag in ("architecture/widths", "architecture/depths", "architecture/decoded"):
        assert len(found[tag]) == 2
        width, height, encoded = found[tag][-1].tolist()
        assert tf.io.decode_png(encoded).shape[:2] == (int(height), int(width))
    text = found["architecture/shape"][-1].item().decode()
    for unit in result.supernet.gates.units:
        assert f"| {unit['name']} | {result.shape.widths[unit['name']]} |" in text
    assert f"| stage_1 | {result.shape.depths['stage_1']} | 2 blocks |" in text
    assert f"{result.metrics['shape_macs']:,} macs" in text


def test_every_choice_has_a_histogram_of_its_candidates(searched):
    result, logs = searched
    found = read(logs / "architecture")
    widths, depths = result.probabilities
    space = tiny_space()
    for axis, rows, choices in (("widths", widths, space.width_choices), ("depths", depths, space.depth_choices)):
        for name, candidates, chances in zip(choices.names, choices.candidates, choices.unpack(rows), strict=True):
            first, last = found[f"{axis}/{name}"]
            assert first.shape == last.shape == (len(candidates), 3)
            np.testing.assert_allclose(last[:, 2], chances, rtol=1e-6)
            assert all(left < one < right for one, (left, right, _) in zip(candidates, last, strict=True))
