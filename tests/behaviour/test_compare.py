"""The comparison of two networks on test images, beside one in NumPy."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import confusion_matrix

from tas_tf.behaviour import compare
from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.behaviour.compare import compare_behaviour
from tas_tf.data.form import Form
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.run_data import RunData
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tests.digits import tiny_network


@pytest.fixture(scope="module")
def pair(trained_tiny) -> tuple[keras.Model, keras.Model]:
    """A trained teacher, and a student that ends in logits and errs often: the teacher with noise."""
    teacher, student = keras.models.load_model(trained_tiny), tiny_network(None)
    rng = np.random.default_rng(0)
    student.set_weights([one + 0.1 * rng.normal(size=one.shape) for one in teacher.get_weights()])
    return teacher, student


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("few", [0, 10_000], ids=["traced", "operator by operator"])
def test_two_classifiers(pair, monkeypatch, few):
    monkeypatch.setattr(compare, "_FEW", few)
    task = Task.load("digits")
    found = compare_behaviour(*pair, task, examples=5)
    images, labels = task.test_arrays()
    by_teacher, by_student = np.asarray(pair[0](images)), softmax(np.asarray(pair[1](images)))
    teachers, students = by_teacher.argmax(-1), by_student.argmax(-1)
    assert found.images == len(labels) == task.num_test
    assert found.classes == tuple(map(str, range(10)))
    assert np.array_equal(found.teacher.matrix(10), confusion_matrix(labels, teachers))
    assert np.array_equal(found.student.matrix(10), confusion_matrix(labels, students))
    right = teachers == labels, students == labels
    agreement = found.agreement
    only_teacher = right[0] & ~right[1]
    assert [agreement.both, agreement.teacher] == [np.sum(right[0] & right[1]), np.sum(only_teacher)]
    assert [agreement.student, agreement.neither] == [np.sum(~right[0] & right[1]), np.sum(~right[0] & ~right[1])]
    assert agreement.same == np.sum(teachers == students)
    # The mistakes of which the student is surest, and their raw images.
    wrong = np.flatnonzero(only_teacher)
    assert len(wrong) > 5
    surest = sorted(wrong, key=lambda one: -by_student[one].max())[:5]
    assert [one.index for one in found.mistakes] == surest
    raw, _ = task.test_arrays(raw=True)
    for mistake, png in zip(found.mistakes, found.pngs, strict=True):
        assert (mistake.label, mistake.predicted) == (labels[mistake.index], students[mistake.index])
        assert mistake.teacher == pytest.approx(by_teacher[mistake.index, mistake.label], abs=1e-5)
        assert mistake.student == pytest.approx(by_student[mistake.index].max(), abs=1e-5)
        pixels = np.asarray(Image.open(io.BytesIO(png)))[::8, ::8]
        assert np.abs(pixels.astype(int) - raw[mistake.index, ..., 0]).max() <= 1


def test_it_is_written_and_read(pair, tmp_path):
    found = compare_behaviour(*pair, Task.load("digits"), examples=2)
    found.write(tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    files = [one["file"] for one in content["mistakes"]]
    assert files == ["examples/00.png", "examples/01.png"]
    assert Behaviour.from_json(content, [(tmp_path / file).read_bytes() for file in files]) == found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples", "metrics.json"]


class Given:
    """Data of any form for one pass."""

    pictures = RunData.pictures

    def __init__(self, inputs, labels, objective, form):
        self._batches = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(3)
        self._objective, self._form = objective, form

    form = property(lambda self: self._form)
    objective = property(lambda self: self._objective)
    inputs = property(lambda self: self._form.several)
    input_shape = property(lambda self: self._form.shapes[self._form.image])
    num_test = property(lambda self: 8)
    class_names = ("no", "yes")
    preprocessing = Preprocessing("none")

    def test(self):
        return self._batches


def test_a_decision_has_two_classes():
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, keras.layers.Dense(1)(keras.layers.Flatten()(images)))
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(8, 4, 4, 3)).astype(np.float32), rng.integers(0, 2, (8, 1)).astype(np.float32)
    found = compare_behaviour(model, model, Given(inputs, labels, Binary(1), Form.of_images(4, 4, 3)))
    logits = np.asarray(model(inputs))[:, 0]
    assert np.array_equal(found.teacher.matrix(2), confusion_matrix(labels[:, 0], logits > 0, labels=[0, 1]))
    assert found.classes == ("no", "yes")
    assert (found.agreement.both + found.agreement.neither, found.agreement.same) == (8, 8)
    chances = np.maximum(1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))
    bins = [one for one in found.student.calibration.bins if one.images]
    assert sum(one.images * one.confidence for one in bins) == pytest.approx(chances.sum(), rel=1e-5)


def test_several_inputs_show_their_images_and_vectors_show_nothing():
    parts = {"number": keras.Input((1,), name="number"), "photo": keras.Input((2, 2, 1), name="photo")}
    joined = keras.layers.Concatenate()([parts["number"], keras.layers.Flatten()(parts["photo"])])
    models = [keras.Model(parts, keras.layers.Dense(2)(keras.layers.Dense(4)(joined))) for _ in range(2)]
    form, rng = Form(("number", "photo"), ((1,), (2, 2, 1))), np.random.default_rng(0)
    packed = rng.uniform(0, 1, (8, 5)).astype(np.float32)
    logits = [
        np.asarray(model({"number": packed[:, :1], "photo": packed[:, 1:].reshape(8, 2, 2, 1)})) for model in models
    ]
    teachers, students = (one.argmax(-1) for one in logits)
    labels = teachers.astype(np.int64)  # the teacher is always right
    found = compare_behaviour(*models, Given(packed, labels, Classification(2), form))
    assert np.array_equal(found.student.matrix(2), confusion_matrix(labels, students, labels=[0, 1]))
    assert found.agreement.teacher == len(found.mistakes) == len(found.pngs) == np.sum(teachers != students)
    for mistake, png in zip(found.mistakes, found.pngs, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(png)))[::32, ::32]
        assert np.array_equal(shown, np.rint(255 * packed[mistake.index, 1:].reshape(2, 2)))

    vectors = keras.Input((5,))
    models = [keras.Model(vectors, keras.layers.Dense(2)(vectors)) for _ in range(2)]
    labels = np.asarray(models[0](packed)).argmax(-1).astype(np.int64)
    found = compare_behaviour(*models, Given(packed, labels, Classification(2), Form.of_images(5)))
    assert found.pngs == ()
    assert len(found.mistakes) == found.agreement.teacher
    assert all(one["file"] is None for one in found.to_json()["mistakes"])


def test_weights_of_images_are_no_labels():
    images = keras.Input((2, 2, 1))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    inputs, labels = np.ones((8, 2, 2, 1), np.float32), np.array([[0, 0.5], [1, 2.0]] * 4, np.float32)
    data = Given(inputs, labels, Classification(2, weighs=True), Form.of_images(2, 2, 1))
    assert compare_behaviour(model, model, data).teacher.matrix(2).sum(1).tolist() == [4, 4]


def test_what_is_not_finite_is_refused(pair):
    broken = keras.models.clone_model(pair[1])
    broken.set_weights([np.full_like(one, np.nan) for one in pair[1].get_weights()])
    with pytest.raises(UserError, match="`student` must give finite outputs"):
        compare_behaviour(pair[0], broken, Task.load("digits"))
