"""Metadata in the files of a run, and the size of these files."""

from pathlib import Path

import keras
import pytest
from keras import layers

from tas_tf.data.task import Task
from tas_tf.deploy.file_contents import file_metadata, measure_file
from tas_tf.deploy.metadata import read_metadata
from tas_tf.deploy.saved_model import serving_model, write_frozen
from tas_tf.deploy.tflite import write_tflite
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.digits import tiny_network, tiny_space


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.load("digits", train_limit=100)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("activation", ["softmax", None])
def test_what_files_carry(task, inside, activation):
    shape = Shape.random(tiny_space(), 0).to_json()
    found = file_metadata(tiny_network(activation), task, shape, inside=inside)
    assert found.network == "tiny"
    assert list(found.labels) == [str(digit) for digit in range(10)]
    assert found.input_shape == (8, 8, 1)
    assert found.preprocessing == task.preprocessing
    assert found.inside is inside
    assert found.probabilities is (activation == "softmax")
    assert found.shape == shape
    assert file_metadata(tiny_network(activation), task, None).shape is None


def _exported(student: keras.Model, task: Task, shape: Shape, path: Path, *, inside: bool = False) -> int:
    """Bytes of the file as an export writes it."""
    before = task.preprocessing.layers() if inside else ()
    served = serving_model(student, preprocessing_layers=before, input_dtype="uint8" if inside else "float32")
    folder = write_frozen(served, path.with_name("frozen"))
    metadata = file_metadata(student, task, shape.to_json(), inside=inside)
    return write_tflite(folder, path, metadata=metadata).stat().st_size


@pytest.mark.parametrize("inside", [pytest.param(False, marks=pytest.mark.slow), True])
def test_measured_is_what_is_exported_with_all_it_carries(task, tmp_path, inside):
    space = tiny_space()
    shape = Shape.random(space, 1)  # all widths of one digit, as in the unpruned network
    student = build_student(space, shape)
    size = _exported(student, task, shape, tmp_path / "student.tflite", inside=inside)
    assert read_metadata(tmp_path / "student.tflite")["shape"] == shape.to_json()
    assert measure_file(student, space, task, inside=inside) == size


@pytest.mark.slow
def test_the_unpruned_shape_takes_the_most_digits(task, tmp_path):
    """A file may be smaller than measured, by the digits of its widths, but never larger."""
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, activation="relu", name="second")(layers.Conv2D(10, 3, name="first")(images))
    model = keras.Model(images, layers.Dense(10, name="scores")(layers.GlobalAveragePooling2D(name="pool")(x)))
    space = SearchSpace.from_graph(Graph.from_model(model))
    for widths, fewer in (([10, 9], 1), ([4, 3], 2)):
        shape = Shape.from_counts(space, widths, [])
        student = build_student(space, shape)
        size = _exported(student, task, shape, tmp_path / "student.tflite")
        assert measure_file(student, space, task) - size == fewer
