"""Inputs that aren't images: sequences of sensors, volumes and plain vectors, from the model to checked files."""

import keras
import numpy as np
import pytest
from keras import layers

import tas_tf

COUNT = 128
RNG = np.random.default_rng(0)
CLASSES = RNG.integers(2, size=COUNT)


def sequences():
    """Slow or fast waves, classified by Conv1D with residual blocks."""
    steps = np.arange(24)[None, :, None] * (0.3 + 0.9 * CLASSES[:, None, None])
    data = np.sin(steps + RNG.uniform(0, 6, (COUNT, 1, 2))).astype("float32")
    signal = keras.Input((24, 2))
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(signal)
    for _ in range(2):
        x = layers.Add()([x, layers.Conv1D(8, 3, padding="same", activation="relu")(x)])
    return keras.Model(signal, layers.Dense(2)(layers.GlobalMaxPooling1D()(x))), data, CLASSES


def volumes():
    """Bright or dark cubes."""
    data = (RNG.uniform(0, 0.5, (COUNT, 5, 5, 5, 1)) + 0.4 * CLASSES[:, None, None, None, None]).astype("float32")
    cubes = keras.Input((5, 5, 5, 1))
    x = layers.Conv3D(6, 3, activation="relu")(layers.Conv3D(6, 1, activation="relu")(cubes))
    return keras.Model(cubes, layers.Dense(2)(layers.GlobalAveragePooling3D()(x))), data, CLASSES


def vectors():
    """An autoencoder of Dense layers, as MLPerf Tiny's for anomalies in sounds."""
    data = (RNG.normal(size=(COUNT, 3)) @ RNG.normal(size=(3, 32))).astype("float32")
    values = keras.Input((32,))
    x = values
    for units in (16, 16, 4, 16, 16):
        x = layers.BatchNormalization(momentum=0.8)(layers.Dense(units)(x))  # settles in few steps
        x = layers.ReLU()(x)
    return keras.Model(values, layers.Dense(32)(x)), data, data


@pytest.mark.slow
@pytest.mark.parametrize("make", [sequences, volumes, vectors])
def test_other_inputs_become_checked_files(make, tmp_path):
    keras.utils.set_random_seed(0)
    model, data, labels = make()
    classes = labels is CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if classes else "mse"
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(data, labels, epochs=15, verbose=0)
    brief = {"race": {"proposals": 1}, "training": {"epochs": 3, "batch_size": 16, "lr": 0.01}, "verbose": 0}
    result = tas_tf.compress(model, (data, labels), (data, labels), "macs:0.6", **brief)
    assert result.student_metrics["macs"] <= 0.6 * result.teacher_metrics["macs"]
    outputs = result.student.predict(data, verbose=0)
    if classes:
        assert result.student_metrics["accuracy"] == pytest.approx(np.mean(outputs.argmax(1) == labels))
    else:
        assert result.student_metrics["mae"] == pytest.approx(np.abs(outputs - labels).mean(), rel=1e-3)
    for format in ("fp32", "int8"):
        options = {"format": format, "metadata": result.metadata, "calibration": data[:64]}
        file = tas_tf.export_tflite(result.student, tmp_path / f"{format}.tflite", **options)
        found = tas_tf.TFLiteModel(file).predict(data)
        assert np.corrcoef(found.reshape(-1), outputs.reshape(-1))[0, 1] > (0.999 if format == "fp32" else 0.9)
    assert tas_tf.read_metadata(file)["input"]["preprocessing"] == "none"


def test_numbers_of_entries_are_probed_as_such():
    """An Embedding takes the numbers of its entries alone; a network of one can be deployed."""
    words = keras.Input((12,))
    x = layers.Conv1D(8, 3, activation="relu")(layers.Embedding(20, 4)(words))
    model = keras.Model(words, layers.Dense(2, "softmax")(layers.GlobalMaxPooling1D()(x)))
    assert tas_tf.describe(model).deployment == "ok"
