"""The authors' shapes: real costs, built networks, and `--shape=published/NAME` in place of a search."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest

from tas_tf.cost.cost_model import CostModel
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError
from tas_tf.published import PUBLISHED, published_shape, shape_file
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tas_tf.zoo.loading import load_network
from tests.commands import run_command
from tests.networks import count_macs, randomize
from tests.parts import slow_except
from trainers import describe, distill

#: Counted once over the built networks; 22.444472 M, 59.858430 M, 61.233836 M and 1210.757120 M are the known ones.
MACS = {
    "cifar10-resnet20": 22_444_472,
    "cifar10-resnet32": 34_945_344,
    "cifar10-resnet56": 59_858_430,
    "cifar10-resnet110": 119_259_258,
    "cifar10-resnet164": 178_071_224,
    "cifar100-resnet20": 22_433_792,
    "cifar100-resnet32": 42_468_608,
    "cifar100-resnet56": 61_233_836,
    "cifar100-resnet110": 119_578_284,
    "cifar100-resnet164": 171_143_792,
    "imagenet-resnet18": 1_210_757_120,
    "imagenet-resnet50": 2_309_248_169,
}


class Described(NamedTuple):
    """A published shape and its network."""

    space: SearchSpace
    shape: Shape


@functools.cache
def published(name: str) -> Described:
    known = PUBLISHED[name]
    network = load_network(known.network, num_classes=known.num_classes, image_size=known.image_size)
    shape = Shape.load(shape_file(f"published/{name}"))
    return Described(SearchSpace.from_model(network, units=shape.widths), shape)


def test_all_twelve_are_there():
    assert set(PUBLISHED) == set(MACS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACS)
def test_costs_are_real(name):
    space, shape = published(name)
    shape.check(space)
    assert CostModel(space)(shape) == MACS[name]


@pytest.mark.parametrize(
    "name",
    slow_except(
        ["cifar10-resnet20", "cifar10-resnet56", "cifar100-resnet56", "imagenet-resnet18"],
        ["cifar10-resnet20", "imagenet-resnet18"],
    ),
)
def test_students_cost_what_they_should_and_run(name):
    """benchmarks/published_shapes.py builds all twelve."""
    student, known = build_student(*published(name)), PUBLISHED[name]
    assert count_macs(student) == MACS[name]
    images = np.random.default_rng(0).normal(size=(1, known.image_size, known.image_size, 3)).astype("float32")
    logits = student(images).numpy()
    assert logits.shape == (1, known.num_classes)
    assert np.isfinite(logits).all()


@pytest.mark.slow
def test_a_student_exports(tmp_path):
    student = randomize(build_student(*published("cifar10-resnet20")))
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype("float32")
    exported = TFLiteModel(export_tflite(student, tmp_path / "student.tflite")).predict(images)
    expected = student.predict(images, verbose=0)
    np.testing.assert_allclose(exported, expected, atol=1e-5 * np.abs(expected).max())


def test_a_shape_wider_than_its_network_inherits_nothing():
    """The shape of ResNet-50 has 68 and 70 filters where the network has 64."""
    space, shape = published("imagenet-resnet50")
    student = build_student(space, shape)
    assert count_macs(student) == MACS["imagenet-resnet50"]
    wider = {unit.name: shape.widths[unit.name] for unit in space.units if shape.widths[unit.name] > unit.width}
    assert wider == {"stage1_block3_conv1": 68, "stage1_block3_conv2": 70}
    assert {name: student.get_layer(name).filters for name in wider} == wider
    with pytest.raises(UserError, match=r"at most 64 filters in stage1_block3_conv1\. Received: 68"):
        inherit_weights(student, student, space, shape)


def test_other_texts_are_paths(tmp_path, monkeypatch):
    assert shape_file("shape.json") == Path("shape.json")
    assert published_shape("runs/published/cifar10-resnet20") is None
    assert published_shape(None) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published").mkdir()
    (tmp_path / "published/mine.json").write_text("{}")
    assert shape_file("published/mine.json") == Path("published/mine.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [("cifar10-resnet58", "no shape 'cifar10-resnet58'.*cifar10-resnet56"), ("?", "cifar10-resnet110, .*resnet50")],
)
def test_unknown_names_are_refused_with_known_ones(name, message):
    with pytest.raises(UserError, match=message):
        shape_file(f"published/{name}")


@pytest.mark.slow
def test_describe_knows_the_data_set():
    outcome = run_command(describe, "--model=resnet32", "--shape=published/cifar100-resnet32", "--json")
    assert outcome.code == 0, outcome
    found = json.loads(outcome.out)
    assert (found["shape_macs"], found["paper_accuracy"]) == (MACS["cifar100-resnet32"], 0.7241)
    assert found["macs"] == CostModel(published("cifar100-resnet32").space).full
    outcome = run_command(describe, "--model=resnet32", "--shape=published/cifar100-resnet32")
    assert "72.41% (quoted second hand)" in outcome.out
    outcome = run_command(describe, "--model=resnet20", "--shape=published/cifar100-resnet32")
    assert outcome.code == 1
    assert "`--shape` is for resnet32. Received the network resnet20" in outcome.err


@pytest.mark.slow
def test_a_student_is_trained_without_a_search(tmp_path):
    """The number of classes comes from the data: a shape fits its network with any head."""
    (tmp_path / "teacher").mkdir()
    load_network("resnet20", num_classes=10, image_size=8, channels=1).save(tmp_path / "teacher/model.keras")
    arguments = [f"--run_dir={tmp_path}", "--model=resnet20", "--train_limit=100", "--batch_size=50", "--progress=none"]
    schedule = ["--student_epochs=1", "--student_warmup=0"]
    outcome = run_command(distill, *arguments, *schedule, "--shape=published/cifar10-resnet2")
    assert outcome.code == 1
    assert "cifar10-resnet20" in outcome.err
    outcome = run_command(distill, *arguments, *schedule, "--shape=published/cifar10-resnet20")
    assert outcome.code == 0, outcome
    assert "--shape=published/cifar10-resnet20" in (tmp_path / "flags.cfg").read_text().split()
    assert not (tmp_path / "search").exists()
    student = keras.models.load_model(tmp_path / "student/model.keras")
    shape = json.loads(shape_file("published/cifar10-resnet20").read_text())
    kept = {name: student.get_layer(name).filters for name in shape["widths"]}
    assert (kept, student.output_shape) == (shape["widths"], (None, 10))
