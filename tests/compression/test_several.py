"""Networks with several inputs and outputs, from the compiled model to checked files."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.metrics import r2_score

import tas_tf
from benchmarks.small_networks import conv_bn, residual

COUNT = 256
RNG = np.random.default_rng(0)
SIDES = RNG.integers(2, size=COUNT)
# Bright on the left or on the right; a table tells how to scale the brightness.
IMAGES = RNG.uniform(0, 0.3, (COUNT, 8, 8, 1)).astype("float32")
IMAGES[SIDES == 0, :, :4] += 0.7
IMAGES[SIDES == 1, :, 4:] += 0.7
SCALES = RNG.uniform(0.5, 1.5, (COUNT, 2)).astype("float32")
INPUTS = {"image": IMAGES, "scales": SCALES}
LABELS = {"side": SIDES, "size": (3 * SCALES[:, :1]).astype("float32"), "bright": (IMAGES > 0.5).astype("float32")}


def trained() -> keras.Model:
    keras.utils.set_random_seed(0)
    image, scales = keras.Input((8, 8, 1), name="image"), keras.Input((2,), name="scales")
    x = conv_bn(image, 8)
    for _ in range(2):
        x = residual(x, 8, 8)
    bright = layers.Conv2D(1, 1, activation="sigmoid", name="bright")(x)
    x = layers.Flatten()(layers.MaxPooling2D(4)(x))
    x = layers.Concatenate()([x, layers.Dense(4, "relu")(scales)])
    side, size = layers.Dense(2, "softmax", name="side")(x), layers.Dense(1, name="size")(x)
    model = keras.Model({"image": image, "scales": scales}, {"side": side, "size": size, "bright": bright})
    losses = {"side": "sparse_categorical_crossentropy", "size": "mse", "bright": "binary_crossentropy"}
    model.compile(keras.optimizers.Adam(0.01), losses, loss_weights={"side": 1.0, "size": 0.5, "bright": 1.0})
    model.fit(INPUTS, LABELS, epochs=8, batch_size=32, verbose=0)
    return model


@pytest.fixture(scope="module")
def teacher() -> keras.Model:
    return trained()


@pytest.fixture(scope="module")
def result(teacher):
    brief = {"race": {"proposals": 2}, "training": {"epochs": 4, "lr": 0.02}, "verbose": 0}
    return tas_tf.compress(teacher, (INPUTS, LABELS, np.ones(COUNT)), (INPUTS, LABELS), "macs:0.5", **brief)


def scores_of(outputs) -> dict[str, float]:
    return {
        "side_accuracy": np.mean(outputs["side"].argmax(1) == SIDES),
        "size_mae": np.abs(outputs["size"] - LABELS["size"]).mean(),
        "size_r2": r2_score(LABELS["size"], outputs["size"]),
        "bright_accuracy": np.mean((outputs["bright"] > 0.5) == LABELS["bright"]),
    }


@pytest.mark.slow
def test_all_scores_are_what_the_networks_outputs_give(teacher, result):
    for model, metrics in ((teacher, result.teacher_metrics), (result.student, result.student_metrics)):
        for name, score in scores_of(model.predict(INPUTS, verbose=0)).items():
            assert metrics[name] == pytest.approx(score, abs=1e-3), name
        assert (metrics["task"], metrics["metric"]) == ("several", "mean_score")
    assert result.student_metrics["macs"] <= result.teacher_metrics["macs"] / 2
    assert result.student_metrics["mean_score"] > 0.6
    assert set(result.student.output) == set(LABELS)


@pytest.mark.slow
def test_files_have_the_same_inputs_and_outputs(result, tmp_path):
    expected = result.student.predict(INPUTS, verbose=0)
    tas_tf.export_saved_model(result.student, tmp_path / "saved", metadata=result.metadata)
    file = tas_tf.export_tflite(result.student, tmp_path / "student.tflite", metadata=result.metadata)
    for outputs in (tas_tf.TFLiteModel(file).predict(INPUTS), _saved(tmp_path / "saved")):
        for name, one in expected.items():
            np.testing.assert_allclose(outputs[name], one, atol=1e-5)
    known = tas_tf.read_metadata(file)
    assert known["inputs"] == {"image": [8, 8, 1], "scales": [2]}
    assert known["outputs"]["side"] == {"task": "classification", "outputs": 2, "output": "probabilities"}
    assert known["outputs"]["size"]["output"] == "values"


def _saved(folder):
    import tensorflow as tf

    serve = tf.saved_model.load(folder).signatures["serving_default"]
    return {name: one.numpy() for name, one in serve(**{key: tf.constant(one) for key, one in INPUTS.items()}).items()}


@pytest.mark.slow
def test_an_int8_file_decides_like_the_student(result, tmp_path):
    calibration = {name: array[:64] for name, array in INPUTS.items()}
    file = tas_tf.export_tflite(result.student, tmp_path / "int8.tflite", format="int8", calibration=calibration)
    outputs, expected = tas_tf.TFLiteModel(file).predict(INPUTS), result.student.predict(INPUTS, verbose=0)
    assert np.mean(outputs["side"].argmax(1) == expected["side"].argmax(1)) > 0.9
    assert np.mean((outputs["bright"] > 0.5) == (expected["bright"] > 0.5)) > 0.9
    short = {**calibration, "scales": SCALES[:20]}
    for wrong, message in ((short, "64 of image, 20 of scales"), (IMAGES, "dictionary of arrays for image, scales")):
        with pytest.raises(tas_tf.UserError, match=message):
            tas_tf.export_tflite(result.student, tmp_path / "x.tflite", format="int8", calibration=wrong)
    whole = {name: (100 * array).astype(np.uint8) for name, array in calibration.items()}
    tas_tf.export_tflite(result.student, tmp_path / "whole.tflite", format="int8", calibration=whole)
    with pytest.raises(tas_tf.UserError, match=r"dictionary of image, scales\. Received: ndarray"):
        tas_tf.TFLiteModel(file).predict(IMAGES)


def test_a_teacher_must_name_its_outputs_alike(teacher):
    image = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    ends = {name: layers.Dense(2, "softmax", name=name)(x) for name in ("first", "second")}
    one = keras.Model(image, [ends["first"], ends["second"]])
    other = keras.Model(image, [ends["second"], ends["first"]])
    with pytest.raises(tas_tf.UserError, match=r"outputs of first of 2, second of 2\. Received: .*second of 2, first"):
        tas_tf.distill(one, other, (IMAGES, [SIDES, SIDES]), verbose=0)


@pytest.mark.slow
def test_the_parts_one_by_one(teacher, result):
    """Search, ranking by loss, and distillation alone."""
    brief = {"epochs": 1, "batch_size": 16}
    found = tas_tf.search(teacher, (INPUTS, LABELS), "macs:0.6", settings={**brief, "warmup_epochs": 0}, verbose=0)
    assert 0 < found.metrics["held_out_mean_score"] < 1
    ranked = tas_tf.rank_channels(teacher, (INPUTS, LABELS), importance="taylor", importance_images=32)
    before, after = (model.predict(INPUTS, verbose=0) for model in (teacher, ranked))
    for name, one in before.items():
        np.testing.assert_allclose(after[name], one, atol=1e-4)
    student = tas_tf.build_student(tas_tf.SearchSpace.from_model(teacher), found.shape)
    kinds = {"side": "classification", "size": "regression", "bright": "binary"}
    trained = tas_tf.distill(student, teacher, (INPUTS, LABELS), settings=brief, task=kinds, verbose=0)
    assert set(trained.model.output) == set(LABELS)


def test_a_description_names_inputs_and_outputs(teacher):
    found = tas_tf.describe(teacher)
    assert found.deployment == "ok"
    first = str(found).splitlines()[0]
    assert (
        "`image` of 8x8x1 and `scales` of 2, bright (yes or no per pixel), side (2 classes), size (one value)" in first
    )


@pytest.mark.slow
def test_sample_weights_count_in_training_alone():
    """A student learns from the images that count, whatever the labels of the others."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(2)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, SIDES, epochs=5, verbose=0)
    wrong, weights = np.arange(COUNT) % 2 == 0, np.ones(COUNT)
    weights[wrong] = 0
    labels = np.where(wrong, 1 - SIDES, SIDES)
    brief = {"inherit": "none", "race": {"proposals": 1}, "training": {"epochs": 8, "alpha": 0.0, "lr": 0.02}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels of training and validation images differ on purpose
        found = tas_tf.compress(model, (IMAGES, labels, weights), (IMAGES, SIDES), **brief, verbose=0)
    assert found.student_metrics["accuracy"] > 0.95
