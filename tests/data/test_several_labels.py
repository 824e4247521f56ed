"""Data with several inputs, several outputs or weights of images: every form arrives, packed as networks take it."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.form import Form
from tas_tf.data.streamed import StreamedData, open_data
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.several import Part, Several
from tests.parts import slow_except

COUNT = 60
RNG = np.random.default_rng(0)
IMAGES = {"image": RNG.integers(0, 255, (COUNT, 4, 5, 3)).astype(np.uint8), "table": RNG.normal(size=(COUNT, 2))}
LABELS = {"kind": RNG.integers(3, size=COUNT), "size": RNG.normal(size=(COUNT, 1))}
WEIGHTS = RNG.uniform(size=COUNT)
FORM = Form(("image", "table"), ((4, 5, 3), (2,)), ("kind", "size"))
OBJECTIVE = Several.of([Part("kind", Classification(3)), Part("size", Regression(1), 0.5)])
#: What networks take and learn from.
INPUTS = np.concatenate([IMAGES["image"].reshape(COUNT, -1), IMAGES["table"]], axis=1).astype("float32")
TARGETS = np.concatenate([LABELS["kind"][:, None], LABELS["size"]], axis=1).astype("float32")


class Batches(keras.utils.PyDataset):
    """Batches of eight."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return -(-COUNT // 8)

    def __getitem__(self, number):
        return keras.tree.map_structure(lambda part: part[8 * number : 8 * number + 8], self.parts)


def in_rows(batches) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and labels of a dataset, in the order of the tables' first column."""
    inputs, labels = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    order = np.argsort(inputs[:, -2])
    return inputs[order], labels[order]


def expected(labels=TARGETS) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(INPUTS[:, -2])
    return INPUTS[order], labels[order]


def as_list(parts):
    return list(parts.values())


FORMS = {
    "arrays by name": (IMAGES, LABELS),
    "arrays in lists": (as_list(IMAGES), as_list(LABELS)),
    "a dataset by name": tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(COUNT, seed=0),
    "a dataset in batches": tf.data.Dataset.from_tensor_slices((tuple(as_list(IMAGES)), tuple(as_list(LABELS))))
    .shuffle(COUNT, seed=0)
    .batch(7),
    "a PyDataset": Batches(IMAGES, LABELS),
}


@pytest.mark.parametrize("train", FORMS.values(), ids=FORMS)
def test_inputs_and_labels_are_packed(train):
    data = open_data(train, train, form=FORM, objective=OBJECTIVE)
    assert (data.num_train, data.image_shape) == (COUNT, (62,))
    for found, wanted in zip(in_rows(data.test()), expected(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    batches, steps = data.training(6)
    for found, wanted in zip(in_rows(batches(0).take(steps)), expected(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_parts_of_a_search_are_disjoint_and_match_their_labels():
    data = open_data((IMAGES, LABELS), form=FORM, objective=OBJECTIVE)
    batches, steps = data.searching(5)
    seen = [set(), set()]
    for pair in batches(0).take(3 * steps):
        for part, (inputs, labels) in zip(seen, pair, strict=True):
            for row, label in zip(inputs.numpy(), labels.numpy(), strict=True):
                (number,) = np.flatnonzero(np.isclose(INPUTS[:, -2], row[-2]))
                np.testing.assert_allclose(label, TARGETS[number], rtol=1e-6)
                part.add(number)
    assert seen[0].isdisjoint(seen[1])
    assert min(map(len, seen)) > 15


def with_weights(kind: str):
    each = {"kind": WEIGHTS, "size": 1 - WEIGHTS}
    return {"one for all": WEIGHTS, "by name": each, "in a list": as_list(each)}[kind], kind == "one for all"


@pytest.mark.parametrize(
    ("form", "kind"),
    slow_except(
        itertools.product(["arrays", "dataset", "PyDataset"], ["one for all", "by name", "in a list"]),
        [("arrays", "one for all"), ("arrays", "by name"), ("dataset", "in a list"), ("PyDataset", "by name")],
    ),
)
def test_weights_stand_behind_the_labels_of_their_output(kind, form):
    weights, alike = with_weights(kind)
    if form == "arrays":
        train = (IMAGES, LABELS, weights)
    elif form == "dataset":
        parts = keras.tree.map_structure(
            tf.constant, (IMAGES, LABELS, tuple(weights) if kind == "in a list" else weights)
        )
        train = tf.data.Dataset.from_tensor_slices(parts).shuffle(COUNT, seed=0).batch(9)
    else:
        train = Batches(IMAGES, LABELS, weights)
    data = open_data(train, (IMAGES, LABELS), form=FORM, objective=OBJECTIVE)
    wanted = np.stack([TARGETS[:, 0], WEIGHTS, TARGETS[:, 1], WEIGHTS if alike else 1 - WEIGHTS], axis=1)
    batches, steps = data.training(6)
    np.testing.assert_allclose(in_rows(batches(0).take(steps))[1], expected(wanted)[1], rtol=1e-6)
    ones = np.stack([TARGETS[:, 0], np.ones(COUNT), TARGETS[:, 1], np.ones(COUNT)], axis=1)
    np.testing.assert_allclose(in_rows(data.test())[1], expected(ones)[1], rtol=1e-6)


@pytest.mark.parametrize(
    "labels", [np.arange(COUNT) % 2, np.array(["no", "yes"] * (COUNT // 2))], ids=["numbers", "names"]
)
def test_a_single_output_with_weights(labels):
    """Names of classes stay known, and the weights of images for scores are left out where training has none."""
    images = np.arange(COUNT, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32")
    form, objective = Form.of_images(2, 2, 1), Binary(1)
    data = open_data((images, labels, WEIGHTS), (images, labels), form=form, objective=objective)
    (found, rows) = next(data.calibration(COUNT, 1).as_numpy_iterator())
    numbers = found[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(rows, np.stack([numbers % 2, WEIGHTS[numbers]], axis=1), rtol=1e-6)
    assert data.class_names == (("0", "1") if labels.dtype.kind == "i" else ("no", "yes"))
    assert data.chance == 0.5
    unweighed = open_data((images, labels), (images, labels, WEIGHTS), form=form, objective=objective)
    assert next(unweighed.test().as_numpy_iterator())[1].shape == (COUNT, 1)


def test_the_unit_of_values_scales_losses():
    images = np.arange(COUNT, dtype="float32")[:, None, None, None] * np.ones((1, 2, 2, 1), "float32")
    values = np.linspace(-500, 700, COUNT)
    data = open_data((images, values), form=Form.of_images(2, 2, 1), objective=Regression(1))
    assert data.objective == Regression(1, loss_scale=pytest.approx(1 / values.var()))


def test_augmentation_changes_the_image_alone():
    from tas_tf.data.augmentation import Augmentation

    data: StreamedData = open_data((IMAGES, LABELS), form=FORM, objective=OBJECTIVE, augment=Augmentation(flip=True))
    batches, steps = data.training(6)
    inputs, _ = in_rows(batches(0).take(steps))
    wanted, _ = expected()
    np.testing.assert_allclose(inputs[:, -2:], wanted[:, -2:], rtol=1e-6)
    images, plain = (part[:, :60].reshape(-1, 4, 5, 3) for part in (inputs, wanted))
    same, turned = ((images == one).all((1, 2, 3)) for one in (plain, plain[:, :, ::-1]))
    assert (same | turned).all()
    assert turned.any()
    assert same.any()


TABLE_ALONE = {"image": IMAGES["image"]}
MISTAKES = {
    "an input is missing": ((TABLE_ALONE, LABELS), "inputs for image, table.*a dictionary without table"),
    "an output is missing": ((IMAGES, LABELS["kind"]), "labels for kind, size.*Received: ndarray"),
    "too many": ((as_list(IMAGES) * 2, LABELS), "Received: 4 of them"),
    "another size": (({**IMAGES, "table": IMAGES["table"][:, :1]}, LABELS), "images of 2 for `table`.*Received: 1"),
    "lengths": (({**IMAGES, "table": IMAGES["table"][1:]}, LABELS), "one label for each image"),
    "negative weights": ((IMAGES, LABELS, -WEIGHTS), "sample weights of at least 0"),
    "names": ((IMAGES, {**LABELS, "kind": LABELS["kind"].astype(str)}), "numbers as labels for `kind`"),
    "a class too many": (
        (IMAGES, {**LABELS, "kind": LABELS["kind"] + 1}),
        "`train` for `kind` must have labels from 0",
    ),
    "no number": ((IMAGES, {**LABELS, "size": LABELS["size"] * np.nan}), "`train` for `size` must have finite labels"),
}


@pytest.mark.parametrize(("train", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(train, message):
    with pytest.raises(UserError, match=message) as caught:
        open_data(train, form=FORM, objective=OBJECTIVE)
    assert "`train`" in str(caught.value)
