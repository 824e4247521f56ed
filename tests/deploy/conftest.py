from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.graph.graph import Graph
from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.quantise import quantise
from tas_tf.qat.saving import Head, load_quantised, write_quantised
from tas_tf.qat.twin import make_twin


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
