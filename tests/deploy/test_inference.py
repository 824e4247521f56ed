"""Files leave out layers that act only in training, anywhere in the network."""

import inspect

import keras
import numpy as np
import pytest

from tas_tf.deploy.inference import inference_model
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.saved_model import LoadedSavedModel, export_saved_model
from tas_tf.deploy.tflite import export_tflite
from tas_tf.graph.kinds import is_augmentation
from tas_tf.graph.layers import every_layer
from tests.networks import randomize

layers = keras.layers
#: Arguments of layers that can't do without.
ARGUMENTS = {
    **dict.fromkeys(["RandomCrop", "CenterCrop", "Resizing"], (8, 8)),
    **dict.fromkeys(["RandomTranslation", "RandomShear"], (0.2, 0.2)),
    **dict.fromkeys(["RandomRotation", "RandomZoom", "RandomHue", "RandomContrast", "RandomBrightness"], (0.2,)),
    **dict.fromkeys(["RandomSaturation", "RandomColorDegeneration", "RandomSharpness"], (0.2,)),
    **dict.fromkeys(["RandomPosterization", "MaxNumBoundingBoxes"], (4,)),
}
IMAGE_LAYERS = sorted(
    name
    for name, kind in inspect.getmembers(layers, inspect.isclass)
    if any(base.__name__ == "BaseImagePreprocessingLayer" for base in kind.__mro__)
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (6, 16, 16, 3)).astype(np.float32)


def network(*front: keras.layers.Layer) -> keras.Model:
    x = inputs = keras.Input((16, 16, 3))
    for layer in front:
        x = layer(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x)))
    return randomize(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))))


FRONTS = {
    "resizing": lambda: [layers.Resizing(12, 12), layers.Rescaling(1 / 255)],
    "nested_resizing": lambda: [keras.Sequential([layers.Resizing(12, 12), layers.Rescaling(1 / 255)])],
    "tutorial": lambda: [
        keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]),
        layers.Rescaling(1 / 255),
        layers.GaussianNoise(0.1),
        layers.Dropout(0.5),
    ],
    "pipeline": lambda: [layers.Pipeline([layers.RandomFlip(), layers.RandomContrast(0.1)]), layers.Rescaling(1 / 255)],
}


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_the_table_has_what_does_nothing_in_inference(name, images):
    """Compares the table with what the layers of Keras do, so that a new layer can't be forgotten."""
    outputs = np.asarray(getattr(layers, name)(*ARGUMENTS.get(name, ()))(images, training=False))
    unchanged = outputs.shape == images.shape and np.array_equal(outputs, images)
    assert is_augmentation("keras.layers", name, {}) == unchanged


@pytest.mark.parametrize("front", FRONTS)
def test_files_compute_what_keras_computes_one_image_a_call(front, images, tmp_path):
    model = network(*FRONTS[front]())
    expected = model(images, training=False).numpy()
    saved = LoadedSavedModel(export_saved_model(model, tmp_path / "saved_model"))
    lite = TFLiteModel(export_tflite(model, tmp_path / "model.tflite"))
    for artefact in (saved, lite):
        np.testing.assert_allclose(artefact.predict(images, batch_size=1), expected, atol=1e-4 * np.abs(expected).max())


def test_weights_are_shared_and_the_model_stays_as_it_is(images):
    model = network(*FRONTS["tutorial"]())
    model.compile(loss=lambda labels, outputs: outputs)  # of no concern, nor can it be written down
    config = model.get_config()
    plain = inference_model(model)
    assert not any(type(layer).__name__.startswith("Random") for layer in every_layer(plain))
    assert [id(weight) for weight in plain.weights] == [id(weight) for weight in model.weights]
    assert model.get_config() == config
    np.testing.assert_array_equal(plain(images, training=False), model(images, training=False))


def test_a_network_without_augmentation_is_itself():
    model = network(layers.Rescaling(1 / 255))
    assert inference_model(model) is model


def decoder(*, size: int | tuple[int, int] = 2, side: int | None = 8) -> keras.Model:
    """Enlarges features twice, with convolutions in between."""
    x = inputs = keras.Input((side, side, 3))
    for filters in (4, 5):
        x = layers.Conv2D(filters, 3, padding="same")(layers.UpSampling2D(size)(x))
    return randomize(keras.Model(inputs, layers.Conv2D(2, 1)(layers.UpSampling2D(size)(layers.UpSampling2D(size)(x)))))


@pytest.mark.parametrize("size", [2, (1, 3)])
def test_enlarged_features_keep_their_size_in_files(size, images, tmp_path):
    """Keras's own layer makes the size unknown, and TFLite lacks a convolution for it after two of them."""
    model, images = decoder(size=size), images[:, :8, :8]
    expected = model(images, training=False).numpy()
    saved = LoadedSavedModel(export_saved_model(model, tmp_path / "saved_model"))
    lite = TFLiteModel(export_tflite(model, tmp_path / "model.tflite"))
    for artefact in (saved, lite):
        np.testing.assert_allclose(artefact.predict(images), expected, atol=1e-4 * np.abs(expected).max())


def test_enlarging_is_exact_for_images_of_any_size(images):
    model = decoder(side=None)
    plain = inference_model(model)
    assert not any(isinstance(layer, layers.UpSampling2D) for layer in every_layer(plain))
    for part in (images[:, :4, :6], images[:, :5, :3]):
        np.testing.assert_array_equal(plain(part, training=False), model(part, training=False))
