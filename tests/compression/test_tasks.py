"""Networks for other tasks than classes, made smaller from Python: scores, ends and files."""

import keras
import numpy as np
import pytest
from keras import layers

import tas_tf
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.errors import UserError

N = 240


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise with a bright square of 4x4 pixels at a random place."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(N, 16, 16, 1)).astype("float32") / 4
    for image, row, column in zip(found, *rng.integers(0, 12, (2, N)), strict=True):
        image[row : row + 4, column : column + 4] += 2
    return found


def centres(images: np.ndarray) -> np.ndarray:
    """Row and column of the square, from -1 to 1."""
    bright = images[..., 0] > 1
    places = np.arange(16)
    rows = (bright.sum(2) * places).sum(1) / bright.sum((1, 2))
    columns = (bright.sum(1) * places).sum(1) / bright.sum((1, 2))
    return (np.stack([rows, columns], 1) / 7.5 - 1).astype("float32")


def conv(x, filters: int, strides: int = 1):
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def for_images(end: layers.Layer) -> keras.Model:
    pixels = keras.Input((16, 16, 1))
    x = conv(conv(pixels, 8, 2), 8, 2)
    return keras.Model(pixels, end(layers.Flatten()(x)), name="small")


def for_pixels(end: layers.Layer) -> keras.Model:
    """A U-Net of two levels."""
    pixels = keras.Input((16, 16, 1))
    fine = conv(pixels, 6)
    coarse = conv(layers.MaxPooling2D()(fine), 8)
    x = layers.Concatenate()([layers.UpSampling2D()(coarse), fine])
    return keras.Model(pixels, end(conv(x, 6)), name="unet")


def trained(model: keras.Model, loss, images, labels, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def compress(model, images, labels, **options):
    halves = (images[:180], labels[:180]), (images[180:], labels[180:])
    no_race = {"proposals": 1, "rate_factors": (1.0,)}
    settings = {"recipe": "fast", "training": {"epochs": 2}, "race": no_race, "verbose": 0, **options}
    return tas_tf.compress(model, *halves, "macs:0.6", **settings)


def check_files(result, images, tmp_path) -> None:
    """The files compute what the student does, also in 8 bits."""
    outputs = result.student.predict(images[180:], verbose=0)
    for format in ("fp32", "int8"):
        path = tas_tf.export_tflite(
            result.student, tmp_path / f"{format}.tflite", format=format, calibration=images[:100]
        )
        found = TFLiteModel(path).predict(images[180:])
        np.testing.assert_allclose(found, outputs, atol=(1e-5 if format == "fp32" else 0.15) * np.abs(outputs).max())


def test_a_single_decision(images, tmp_path):
    labels = (centres(images)[:, 0] > 0).astype(int)
    model = trained(for_images(layers.Dense(1, "sigmoid")), "binary_crossentropy", images, labels, 12)
    result = compress(model, images, labels)
    said = model.predict(images[180:], verbose=0)[:, 0] > 0.5
    assert result.teacher_metrics["accuracy"] == pytest.approx((said == labels[180:]).mean())
    assert (result.student_metrics["task"], result.student_metrics["metric"]) == ("binary", "accuracy")
    assert result.student_metrics["roc_auc"] > 0.9
    assert result.student.layers[-1].activation is keras.activations.sigmoid
    assert result.student_metrics["macs"] < 0.6 * result.teacher_metrics["macs"]
    check_files(result, images, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1, 1000])
def test_values(images, tmp_path, unit):
    """At the default rates, whatever the unit of the values."""
    labels = centres(images)
    model = trained(for_images(layers.Dense(2)), "mse", images, labels, 30)
    labels = unit * labels
    model.layers[-1].set_weights([unit * weights for weights in model.layers[-1].get_weights()])
    result = compress(model, images, labels)
    errors = np.abs(model.predict(images[180:], verbose=0) - labels[180:])
    assert result.teacher_metrics["mae"] == pytest.approx(errors.mean(), rel=1e-4)
    assert result.student_metrics["metric"] == "mae"
    assert result.student_metrics["mae"] < 0.5 * np.abs(labels).mean()
    check_files(result, images, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("end", [pytest.param("softmax", marks=pytest.mark.slow), "sigmoid"])
def test_pixels(images, tmp_path, end):
    labels = (images[..., 0] > 1).astype(int)
    last = layers.Conv2D(2, 1, activation="softmax") if end == "softmax" else layers.Conv2D(1, 1, activation="sigmoid")
    loss = "sparse_categorical_crossentropy" if end == "softmax" else "binary_crossentropy"
    model = trained(for_pixels(last), loss, images, labels[..., None], 6)
    result = compress(model, images, labels if end == "softmax" else labels[..., None])
    outputs = model.predict(images[180:], verbose=0)
    said = outputs.argmax(-1) if end == "softmax" else outputs[..., 0] > 0.5
    overlaps = [
        ((said == one) & (labels[180:] == one)).sum() / ((said == one) | (labels[180:] == one)).sum() for one in (0, 1)
    ]
    assert result.teacher_metrics["mean_iou"] == pytest.approx(np.mean(overlaps), rel=1e-5)
    assert result.student_metrics["mean_iou"] > 0.7
    assert result.student.output_shape == model.output_shape
    check_files(result, images, tmp_path)


def test_labels_of_another_task_are_refused(images):
    model, labels = for_images(layers.Dense(3, "sigmoid")), np.zeros((N, 3))
    with pytest.raises(UserError, match=r"labels for multilabel, \[batch, 3\]. Received: float64 \[batch, 2\]"):
        compress(model, images, labels[:, :2])
    with pytest.raises(UserError, match=r"from 0 \(no\) to 1 \(yes\) for multilabel. Received: 0.0 to 2.0"):
        compress(model, images, labels + 2 * (np.arange(3) == 1))
    with pytest.raises(UserError, match="`task`: small ends in 1 output"):
        compress(for_images(layers.Dense(1)), images, labels[:, 0])
    pixels = for_pixels(layers.Conv2D(2, 1, activation="softmax"))
    with pytest.raises(UserError, match="`augment` changes only images"):
        compress(pixels, images, images[..., 0] > 1, augment=tas_tf.Augmentation(flip=True))


def test_a_network_near_the_best_constant_is_refused(images):
    with pytest.raises(UserError, match=r"near chance level: its mae is .*, guessing gives 0\.\d+"):
        compress(for_images(layers.Dense(2)), images, centres(images), task="regression")


@pytest.mark.slow
def test_distillation_and_search_for_several_labels(images):
    labels = (centres(images) > 0).astype("float32")
    model = trained(for_images(layers.Dense(2, "sigmoid")), "binary_crossentropy", images, labels, 12)
    found = tas_tf.search(model, (images, labels), "macs:0.6", settings={"epochs": 1, "held_out_limit": 60}, verbose=0)
    assert 0 < found.metrics["held_out_mean_average_precision"] <= 1
    result = tas_tf.distill(model, model, (images, labels), (images, labels), settings={"epochs": 1}, verbose=0)
    assert result.metrics["mean_average_precision"] > 0.9
    ranked = tas_tf.rank_channels(model, (images, labels), importance="taylor")
    np.testing.assert_allclose(ranked.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5)
