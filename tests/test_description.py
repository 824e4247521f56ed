"""What a description says, as text and as JSON."""

import dataclasses
import json

import keras
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.description import describe, describe_space
from tas_tf.errors import UserError
from tas_tf.space.shape import Shape
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tests.digits import CLASSES, tiny_network, tiny_space


def test_the_text_names_what_can_shrink_what_cannot_and_the_lowest_cost():
    model = tiny_network()
    found = describe(model)
    lines = str(found).splitlines()
    assert lines[0] == "tiny, images of 8x8x1, 10 classes"
    assert lines[1] == f"{CostModel(tiny_space()).full:,} MACs, {model.count_params():,} parameters"
    assert lines[2] == "deployment: ok"
    lowest = float(lines[3].removeprefix("smallest reachable: ").split()[0])
    assert found.min_macs_ratio <= lowest < found.min_macs_ratio + 0.001
    text = str(found)
    for expected in ("block1_conv1", "stage_1", "classifier", "it makes the outputs"):
        assert expected in text
    assert max(map(len, lines)) <= 120


def test_options_decide_what_can_shrink():
    found = describe(tiny_network(), axes="depth")
    assert all(unit.candidates == (unit.width,) for unit in found.units)
    assert [stage.candidates for stage in found.stages] == [(1, 2)]
    with pytest.raises(UserError, match="axes"):
        describe(tiny_network(), axes="height")


@pytest.mark.slow
def test_trunks_are_coupled_as_in_a_search():
    model = resnet_cifar(20, bottleneck=True, image_size=8)
    assert describe(model).is_coupled
    assert not describe(model, couple_trunk=False).is_coupled


def test_json_has_the_same_numbers():
    space = tiny_space()
    shape = Shape.smallest(space)
    found = describe_space(space, CLASSES, name="mine", shape=shape)
    data = json.loads(json.dumps(found.to_json()))
    assert (data["model"], data["macs"], data["shape_macs"]) == ("mine", found.macs, CostModel(space)(shape))
    assert {"deployment", "budgets", "paper_accuracy"}.isdisjoint(data)
    budgets = {"macs:5": {"limit": 5, "full": 9, "smallest": 1}}
    more = dataclasses.replace(found, deployment="ok", budgets=budgets, paper_accuracy=0.5)
    assert more.to_json()["deployment"] == "ok"
    assert "deployment: ok" in str(more)
    assert more.to_json()["budgets"] == budgets
    assert "budget macs:5: 5 of 9 macs (0.556), smallest 1 macs" in str(more)
    assert "50.00%" in str(more)


def test_the_frozen_share_counts_what_no_shape_can_reduce():
    """Two softmaxes over channels need all of theirs: between them nothing can shrink."""
    images = keras.Input((4, 4, 3))
    x = keras.layers.Softmax()(keras.layers.Conv2D(6, 1, name="first")(images))
    x = keras.layers.Softmax()(keras.layers.Conv2D(8, 3, padding="same", name="second")(x))
    x = keras.layers.Conv2D(10, 1, name="free")(x)
    found = describe(keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))))
    first, second, free, end = 16 * 3 * 6, 16 * 9 * 6 * 8, 16 * 8 * 10, 10 * 2
    full = first + second + free + end
    assert found.frozen_shares == {"first": first / full, "second": second / full}
    data = found.to_json()
    assert data["frozen_share"] == pytest.approx((first + second) / full)
    assert data["frozen_shares"] == found.frozen_shares
    line = f"frozen: {(first + second) / full:.1%} of the MACs can't shrink: second {second / full:.1%}, first"
    assert line in str(found)


@pytest.mark.slow
def test_what_the_network_is_for():
    def found(end: keras.layers.Layer, loss=None, *, pixels: bool = False, **options):
        images = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(8, 3, padding="same", name="first")(images)
        x = end(x if pixels else keras.layers.GlobalAveragePooling2D()(x))
        model = keras.Model(images, x, name="net")
        if loss:
            model.compile("sgd", loss)
        return describe(model, **options)

    dense, conv = keras.layers.Dense, keras.layers.Conv2D
    for description, task, words in (
        (found(dense(1, "sigmoid")), "binary", "yes or no"),
        (found(dense(5, "sigmoid")), "multilabel", "5 labels"),
        (found(dense(1), "mae"), "regression", "one value"),
        (found(dense(2), task="regression"), "regression", "2 values"),
        (found(conv(4, 1, activation="softmax"), pixels=True), "classification", "4 classes per pixel"),
        (found(dense(1)), None, "outputs: 1, for a `task` that must be given"),
    ):
        assert str(description).splitlines()[0] == f"net, images of 8x8x1, {words}"
        assert description.task == description.to_json()["task"] == task
    with pytest.raises(UserError, match="`task`=binary needs"):
        found(dense(5), task="binary")
