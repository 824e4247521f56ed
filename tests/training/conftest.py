"""A small classifier and a dataset whose order depends only on the epoch."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.training.strategy import make_strategy

BATCH_SIZE = 8
STEPS_PER_EPOCH = 4


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    # The one object of the process: see `make_strategy`.
    return make_strategy("mirrored")


@pytest.fixture(scope="session")
def examples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    images = rng.normal(size=(40, 6, 6, 1)) + labels[:, None, None, None]
    return images.astype("float32"), labels


@pytest.fixture(scope="session")
def epochs_dataset(examples) -> Callable[..., tf.data.Dataset]:
    images, labels = (tf.constant(part) for part in examples)

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(BATCH_SIZE * STEPS_PER_EPOCH), seed=[7, tf.cast(epoch, tf.int32)]
        )
        batches = tf.data.Dataset.from_tensor_slices((tf.gather(images, order), tf.gather(labels, order)))
        return batches.batch(BATCH_SIZE, drop_remainder=True)

    return lambda epoch, step=0: tf.data.Dataset.counter(epoch).flat_map(one_epoch).skip(step)


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., keras.Model]:
    """Gives models of equal weights, dropout and batch normalisation on request."""

    def make(*, dropout=0.0, normalise=False, filters=4, seed=1):
        keras.utils.set_random_seed(seed)
        images = keras.Input((6, 6, 1))
        features = keras.layers.Conv2D(filters, 3, kernel_regularizer=keras.regularizers.L2(0.01))(images)
        if normalise:
            features = keras.layers.BatchNormalization(momentum=0.9)(features)
        features = keras.layers.Flatten()(keras.layers.ReLU()(features))
        if dropout:
            features = keras.layers.Dropout(dropout)(features)
        return keras.Model(images, keras.layers.Dense(3)(features))

    return make


@pytest.fixture(scope="session")
def compile_classifier() -> Callable[[keras.Model], keras.Model]:
    def compile_model(model, learning_rate=0.05):
        model.compile(
            keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    return compile_model
