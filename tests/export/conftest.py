from collections.abc import Callable

import keras
import numpy as np
import pytest


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
