"""Commands on data that a Python file makes: any inputs and outputs."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tas_tf
from export import student as export
from tas_tf.data.own_data import Script
from trainers import describe, distill, pipeline, teacher

DATA = """
import numpy as np

def make(count, seed):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(count, 12, 3)).astype("float32")
    photo = rng.uniform(size=(count, 6, 6, 1)).astype("float32")
    kind = (signal[..., 0].mean(1) > 0).astype("int64")
    return {"signal": signal, "photo": photo}, {"kind": kind, "where": (photo > 0.5).astype("float32")}

train = make(160, 0)

def test():
    return make(80, 1)
"""


def conv_bn(x, filters: int):
    conv = layers.Conv1D if len(x.shape) == 3 else layers.Conv2D
    return layers.ReLU()(layers.BatchNormalization(momentum=0.8)(conv(filters, 3, padding="same")(x)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file that makes data, and a network with a signal and an image as inputs, a class and a mask as outputs."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "signals_and_photos.py").write_text(DATA)
    signal, photo = keras.Input((12, 3), name="signal"), keras.Input((6, 6, 1), name="photo")
    seen = conv_bn(photo, 8)
    both = [layers.GlobalAveragePooling1D()(conv_bn(signal, 8)), layers.GlobalAveragePooling2D()(seen)]
    kind = layers.Dense(2, "softmax", name="kind")(layers.Concatenate()(both))
    where = layers.Conv2D(1, 1, activation="sigmoid", name="where")(seen)
    model = keras.Model({"signal": signal, "photo": photo}, {"kind": kind, "where": where}, name="both")
    losses = {"kind": "sparse_categorical_crossentropy", "where": "binary_crossentropy"}
    model.compile(keras.optimizers.Adam(0.02), losses)
    keras.utils.set_random_seed(0)
    model.fit(*made(folder).train, batch_size=32, epochs=25, verbose=0)
    model.save(folder / "both.keras")
    return folder


def made(folder):
    return Script.of(f"python:{folder}/signals_and_photos.py")


@pytest.fixture
def arguments(folder):
    return [f"--model={folder}/both.keras", f"--dataset=python:{folder}/signals_and_photos.py"]


def test_from_a_signal_and_an_image_to_a_class_and_a_mask(command, folder, arguments, tmp_path):
    quiet = ["--progress=none", "--max_accuracy_drop=0.5"]
    short = ["--student_epochs=1", "--proposals=1", "--rate_factors=0.5", "--batch_size=32", "--formats=fp32,int8"]
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", *arguments, *short, *quiet)
    assert outcome.code == 0, outcome
    found = json.loads((tmp_path / "run/report.json").read_text())
    inputs, labels = made(folder).test
    model = keras.models.load_model(folder / "both.keras")
    student = keras.models.load_model(tmp_path / "run/student/model.keras")
    for name, network in (("teacher", model), ("student", student)):
        outputs = network.predict(inputs, verbose=0)
        right = (outputs["kind"].argmax(1) == labels["kind"]).mean()
        assert found[name]["kind_accuracy"] == pytest.approx(right)
        right = ((outputs["where"] > 0.5) == (labels["where"] > 0.5)).mean()
        assert found[name]["where_accuracy"] == pytest.approx(right, abs=1e-4)
    assert found["student"]["macs"] <= 0.5 * found["teacher"]["macs"]
    deployed = tas_tf.TFLiteModel(tmp_path / "run/export/fp32.tflite").predict(inputs)
    for name, expected in student.predict(inputs, verbose=0).items():
        np.testing.assert_allclose(deployed[name], expected, rtol=1e-3, atol=1e-4)
    again = command(pipeline, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--progress=none")
    assert again.code == 0, again
    assert "up to date" in again.out
    script = folder / "signals_and_photos.py"
    script.write_text(f"{DATA}# changed")
    stale = command(pipeline, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--progress=none")
    script.write_text(DATA)
    assert (stale.code, "made from other settings or inputs" in stale.err) == (1, True), stale
    # A single step doesn't mix two data sets.
    script.write_text(f"{DATA}# changed")
    for one in (distill, export):
        mixed = command(one, f"--flagfile={tmp_path}/run/flags.cfg", f"--run_dir={tmp_path}/run", "--overwrite")
        assert mixed.code == 1
        assert "`--dataset`: signals_and_photos.py has changed since the teacher in" in mixed.err
    script.write_text(DATA)


def test_what_a_file_did_to_images_is_not_known_for_other_data(command, folder, arguments, tmp_path):
    taken = command(teacher, f"--run_dir={tmp_path}/run", *arguments)
    assert taken.code == 0, taken
    other = ["--dataset=digits", "--budget=macs:0.5"]
    outcome = command(distill, f"--run_dir={tmp_path}/other", f"--teacher_from={tmp_path}/run", *other)
    assert outcome.code == 1
    assert "`--dataset`: digits isn't what the teacher in" in outcome.err
    assert not (tmp_path / "other").exists()


SEQUENCES = """
import numpy as np

def make(count, seed):
    rng = np.random.default_rng(seed)
    steps, place = rng.normal(size=(count, 10, 2)).astype("float32"), rng.integers(3, size=(count, 1)).astype("int32")
    return {"steps": steps, "place": place}, (steps[..., 0].mean(1) + 0.3 * place[:, 0] > 0.3).astype("int64")

train, test = make(160, 0), make(80, 1)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_sequences_and_whole_numbers_become_files(command, tmp_path, monkeypatch):
    (tmp_path / "steps_and_places.py").write_text(SEQUENCES)
    steps, place = keras.Input((10, 2)), keras.Input((1,), dtype="int32")  # known by their keys alone
    seen = layers.GlobalAveragePooling1D()(conv_bn(conv_bn(steps, 8), 8))
    both = layers.Concatenate()([seen, layers.Flatten()(layers.Embedding(3, 2)(place))])
    model = keras.Model({"steps": steps, "place": place}, layers.Dense(2, "softmax")(both), name="sequences")
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    script = Script.of(f"python:{tmp_path}/steps_and_places.py")
    keras.utils.set_random_seed(0)
    model.fit(*script.train, batch_size=32, epochs=20, verbose=0)
    model.save(tmp_path / "sequences.keras")
    monkeypatch.chdir(tmp_path)
    short = ["--student_epochs=1", "--proposals=1", "--batch_size=32", "--formats=fp32,int8", "--progress=none"]
    network = ["--model=sequences.keras", "--dataset=python:steps_and_places.py", "--max_accuracy_drop=0.5"]
    outcome = command(pipeline, "--run_dir=run", *network, *short)
    assert outcome.code == 0, outcome
    assert f"--dataset=python:{tmp_path}/steps_and_places.py" in (tmp_path / "run/flags.cfg").read_text().splitlines()
    found = json.loads((tmp_path / "run/report.json").read_text())
    inputs, labels = script.test
    for format in ("fp32", "int8"):
        outputs = tas_tf.TFLiteModel(f"run/export/{format}.tflite").predict(inputs)
        assert found["student"]["tflite"][format]["accuracy"] == pytest.approx((outputs.argmax(1) == labels).mean())


def test_a_description_knows_the_data(command, arguments):
    described = command(describe, *arguments, "--budget=macs:0.5")
    assert described.code == 0, described
    assert "`photo` of 6x6x1 and `signal` of 12x3, kind (2 classes), where (yes or no per pixel)" in described.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--preprocess=standardise", "`--preprocess` prepares pixels"),
        ("--image_size=8", "`--image_size` is for data that is read from files"),
        ("--preprocessing_inside", "`--preprocessing_inside` puts preprocessing into files"),
        ("--model=resnet20", "`--dataset`: the data of a Python file needs a `--model` of your own"),
        ("--dataset=python:other.py", "`--dataset` must name a Python file"),
        ("--dataset=other.py", "Expected: python:other.py."),
        ("--formats=qat_int8", "It takes images alone. Received: 2 inputs."),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(command, arguments, tmp_path, change, message):
    outcome = command(pipeline, f"--run_dir={tmp_path}/run", *arguments, change)
    assert (outcome.code, "Traceback" in outcome.err) == (1, False), outcome
    assert message in outcome.err
    assert not (tmp_path / "run").exists()
