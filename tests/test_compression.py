"""One call from a model and datasets to a student, and the README's examples as they are written."""

import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.compression import compress
from tas_tf.data.augmentation import Augmentation
from tas_tf.deploy.tflite import TFLiteModel, file_size
from tas_tf.errors import UserError
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.transfer import inherit_from_supernet
from tas_tf.training.settings import TrainSettings
from tas_tf.zoo.loading import load_file
from tests.digits import tiny_search, tiny_task
from tests.networks import count_macs

BRIEF = TrainSettings(epochs=1, warmup_epochs=0, batch_size=32, lr=0.01)


@pytest.fixture(scope="module")
def model(trained_tiny) -> keras.Model:
    return load_file(trained_tiny)


@pytest.fixture(scope="module")
def datasets() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Digits as a user would have them: float32, standardised, in batches of their own."""
    task = tiny_task()
    train = task.plain(task.indices, 50)
    return train, task.test(50)


def test_a_student_within_the_budget(model, datasets):
    weights = [np.array(weight) for weight in model.get_weights()]
    result = compress(
        model, *datasets, "macs:0.6", search=tiny_search(from_teacher=True), distillation=BRIEF, verbose=0
    )
    macs = count_macs(result.student)
    assert macs == result.student_metrics["macs"] <= 0.6 * count_macs(model)
    assert {type(layer).__module__.split(".")[0] for layer in result.student.layers} == {"keras"}
    images, labels = (np.concatenate(part) for part in zip(*datasets[1].as_numpy_iterator(), strict=True))
    for network, metrics in ((model, result.teacher_metrics), (result.student, result.student_metrics)):
        hits = np.asarray(network(images)).argmax(1) == labels
        assert metrics["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)
        assert metrics["params"] == network.count_params()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


#: Leaves weights where they start.
STILL = replace(BRIEF, lr=1e-7, l2=0.0)


def test_bytes_and_weights_of_the_model(model, datasets):
    search = tiny_search(from_teacher=True)
    result = compress(
        model, *datasets, "bytes:0.7", search=search, distillation=STILL, start="teacher", measure=file_size, verbose=0
    )
    assert file_size(result.student) <= 0.7 * file_size(model)
    kernel = result.student.get_layer("stem").kernel.numpy()
    np.testing.assert_allclose(kernel, model.get_layer("stem").kernel.numpy()[..., : kernel.shape[-1]], atol=1e-5)


def test_weights_of_the_supernet(model, datasets):
    result = compress(model, *datasets, search=tiny_search(), distillation=STILL, start="supernet", verbose=0)
    expected = keras.models.clone_model(result.student)
    space = SearchSpace.from_model(model)
    inherit_from_supernet(expected, result.search.supernet, space, result.shape)
    for name in ("stem", "block1_conv1", "classifier"):
        kernels = (network.get_layer(name).kernel.numpy() for network in (result.student, expected))
        np.testing.assert_allclose(*kernels, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "macs:0.001"}, "below what"),
        ({"budget": "bytes:0.5"}, "measure"),
        ({"budget": 0.5}, "budget"),
        ({"axes": "height"}, "axes"),
        ({"start": "middle"}, "start"),
        ({"augment": Augmentation(random_resized_crop=True)}, "uint8"),
    ],
    ids=str,
)
def test_bad_arguments(model, datasets, change, message):
    with pytest.raises(UserError, match=message):
        compress(model, *datasets, **{"search": tiny_search(), "distillation": BRIEF, "verbose": 0, **change})


def test_images_that_are_scaled_in_two_ways_are_refused(model, datasets):
    train, test = datasets
    with pytest.raises(UserError, match="scaled alike"):
        compress(
            model,
            train.map(lambda images, labels: (images * -255.0, labels)),
            test,
            search=tiny_search(),
            distillation=BRIEF,
            verbose=0,
        )


def test_a_model_at_chance_is_refused(model, datasets):
    untrained = keras.models.clone_model(model)
    with pytest.raises(UserError, match="near chance"):
        compress(untrained, *datasets, search=tiny_search(), distillation=BRIEF, verbose=0)


def readme_examples() -> list[str]:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = text[text.index("## From Python") : text.index("## Limits")]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_readme_as_written(trained_tiny, datasets, tmp_path, monkeypatch, capfd):
    """From a file and saved datasets to a TFLite file that computes what the student does."""
    example, parts = readme_examples()
    assert len([line for line in example.split("\n\n")[-1].splitlines() if not line.startswith("#")]) <= 10
    monkeypatch.chdir(tmp_path)
    keras.models.load_model(trained_tiny).save("mine.keras")
    for name, dataset in zip(("train", "test"), datasets, strict=True):
        dataset.save(name)
    space: dict = {}
    exec(example, space)
    student = keras.models.load_model("student.keras", compile=False)
    images, _ = next(datasets[1].as_numpy_iterator())
    lite = TFLiteModel("student.tflite").predict(images)
    np.testing.assert_allclose(lite, np.asarray(student(images)), atol=1e-4)
    assert count_macs(student) <= count_macs(space["model"]) / 2
    exec(parts, {})
    full, smaller = map(int, capfd.readouterr().out.splitlines()[-1].split())
    assert (full, smaller < full) == (40_813_184, True)
