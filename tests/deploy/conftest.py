from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.saved_model import serving_model, write_frozen
from tas_tf.deploy.tflite import write_tflite
from tas_tf.graph.graph import Graph
from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.quantise import quantise
from tas_tf.qat.saving import Head, load_quantised, write_quantised
from tas_tf.qat.twin import make_twin


def plain() -> keras.Model:
    """The operators of residual networks."""
    layers = keras.layers
    images = keras.Input((16, 16, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3, strides=2, padding="same")(images))
    x = layers.Add()([x, layers.ReLU()(layers.DepthwiseConv2D(3, padding="same")(x))])
    x = layers.Conv2D(12, 1, activation="relu")(layers.MaxPooling2D()(x))
    return keras.Model(images, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def per_pixel() -> keras.Model:
    """A long skip, and an operator whose kernel needs more memory than its tensors."""
    layers = keras.layers
    images = keras.Input((16, 16, 3))
    skip = layers.Conv2D(6, 3, padding="same", activation="relu")(images)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Concatenate()([skip, layers.Conv2DTranspose(6, 2, strides=2)(x)])
    return keras.Model(images, layers.Conv2D(3, 1)(layers.UpSampling2D(2, interpolation="bilinear")(x)))


def squeezing() -> keras.Model:
    """Attention over channels, several outputs, a maximum over axes."""
    layers = keras.layers
    images = keras.Input((16, 16, 3), name="images")
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 3, padding="same")(images))
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    outputs = {"most": layers.GlobalMaxPooling2D()(x), "score": layers.Dense(2)(layers.Flatten()(x))}
    return keras.Model(images, outputs)


NETWORKS = {"plain": plain, "per_pixel": per_pixel, "squeezing": squeezing}
METADATA = Metadata("mine", ['a "cat"', "dog\\", "é", "*/"], (16, 16, 3), Preprocessing(), False, True)


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., keras.Model]:
    """Residual CNNs on 8x8 RGB with four classes, every weight and BN statistic random."""

    def make(*, seed: int = 0, filters: int = 6, activation: str | None = None, policy: str | None = None):
        layers = keras.layers
        images = keras.Input((8, 8, 3))
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, dtype=policy)(images)
        x = layers.ReLU(dtype=policy)(layers.BatchNormalization(dtype=policy)(x))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False, dtype=policy)(x)
        y = layers.BatchNormalization(dtype=policy)(y)
        x = layers.ReLU(dtype=policy)(layers.Add(dtype=policy)([x, y]))
        x = layers.GlobalAveragePooling2D(dtype=policy)(x)
        model = keras.Model(images, layers.Dense(4, activation=activation, dtype="float32")(x))
        rng = np.random.default_rng(seed)
        model.set_weights([rng.uniform(0.3, 1.0, w.shape) * rng.choice([-1, 1], w.shape) for w in model.weights])
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(rng.uniform(0.5, 4.0, filters))
        return model

    return make


@pytest.fixture(scope="session")
def test_set() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((37, 8, 8, 3), dtype=np.float32), rng.integers(0, 4, 37)


@pytest.fixture(scope="session")
def make_pixels() -> Callable[..., np.ndarray]:
    """Noisy uint8 images, each with its own colour, without black or white."""

    def make(count: int, *, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        colours = rng.integers(60, 196, (count, 1, 1, 3))
        return (colours + rng.integers(-50, 51, (count, 8, 8, 3))).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def settle() -> Callable[[keras.Model, np.ndarray], keras.Model]:
    """Gives a network the statistics of some images, as training would, and each class a share of them."""

    def fit(model: keras.Model, images: np.ndarray) -> keras.Model:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0
        model(images, training=True)
        head = model.layers[-1]
        features = keras.Model(model.input, head.input)(images).numpy()
        head.bias.assign(-(features @ head.kernel.numpy()).mean(axis=0))
        return model

    return fit


@pytest.fixture(scope="session")
def make_quantised(tmp_path_factory) -> Callable[[keras.Model, np.ndarray], keras.Model]:
    """The same network with fake quantisation and ranges from some images, saved and loaded, but not fine-tuned."""

    def make(model: keras.Model, images: np.ndarray) -> keras.Model:
        network = quantise(make_twin(model))
        calibrate(network, tf.data.Dataset.from_tensor_slices(images).batch(len(images)))
        folder = tmp_path_factory.mktemp("quantised") / "saved_model"
        graph = Graph.from_model(model)
        write_quantised(folder, network, heads={"output": Head((), graph.activation_of(graph.end))})
        return load_quantised(folder, model.input_shape[1:])

    return make


@pytest.fixture(scope="session")
def make_int8(tmp_path_factory) -> Callable[[str], Path]:
    """Int8 files of `NETWORKS`, made once."""
    folder, made = tmp_path_factory.mktemp("micro"), {}
    images = np.random.default_rng(0).normal(size=(24, 16, 16, 3)).astype(np.float32)

    def make(name: str) -> Path:
        if name not in made:
            frozen = write_frozen(serving_model(NETWORKS[name]()), folder / name)
            made[name] = write_tflite(
                frozen,
                folder / f"{name}.tflite",
                format="int8",
                calibration=images,
                metadata=METADATA if name == "plain" else None,
            )
        return made[name]

    return make
