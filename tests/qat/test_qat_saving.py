"""A fake-quantised network written and read back as a Keras 3 model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.quantise import quantise
from tas_tf.qat.saving import Head, load_quantised, write_quantised
from tas_tf.qat.twin import make_twin
from tests.networks import classify, conv_bn, randomize


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 8, 6, 2)).astype("float32")


@pytest.fixture(scope="module")
def network(images) -> tf_keras.Model:
    """For images that aren't square."""
    inputs = keras.Input((8, 6, 2))
    result = quantise(make_twin(randomize(keras.Model(inputs, classify(layers.Dropout(0.5)(conv_bn(inputs, 6)))))))
    calibrate(result, tf.data.Dataset.from_tensors(images))
    return result


@pytest.mark.parametrize("softmax", [False, True])
def test_a_network_comes_back_as_it_is_in_inference(network, images, tmp_path, softmax):
    write_quantised(
        tmp_path / "made" / "network", network, heads={"output": Head((5,), "softmax" if softmax else "linear")}
    )
    loaded = load_quantised(tmp_path / "made" / "network", (8, 6, 2))
    assert isinstance(loaded, keras.Model)
    assert (loaded.input_shape, loaded.output_shape) == ((None, 8, 6, 2), (None, 5))
    expected = network(images, training=False).numpy()
    if softmax:
        powers = np.exp(expected - expected.max(-1, keepdims=True))
        expected = powers / powers.sum(-1, keepdims=True)
    for count in (1, 3, 7):
        np.testing.assert_allclose(loaded(images[:count]), expected[:count], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.predict(images, batch_size=4, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_several_outputs_come_back_apart(images, tmp_path):
    """Each has its own range: rounded with the large values of `size`, the logits of `kind` would be all alike."""
    inputs = keras.Input((8, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu")(inputs))
    outputs = {"size": layers.Dense(1, name="far")(x), "kind": layers.Dense(3, "softmax", name="near")(x)}
    model = randomize(keras.Model(inputs, outputs))
    far = model.get_layer("far")
    far.set_weights([1000 * weights for weights in far.get_weights()])
    network = quantise(make_twin(model))
    calibrate(network, tf.data.Dataset.from_tensors(images))
    heads = {"kind": Head((3,), "softmax"), "size": Head((1,), "linear")}
    write_quantised(tmp_path / "network", network, heads=heads)
    found, expected = load_quantised(tmp_path / "network", (8, 6, 2))(images), model(images)
    assert {name: one.shape for name, one in found.items()} == {"kind": (7, 3), "size": (7, 1)}
    np.testing.assert_allclose(found["kind"], expected["kind"], atol=0.1)
    np.testing.assert_allclose(found["size"], expected["size"], atol=0.05 * np.abs(expected["size"]).max())


def test_what_stood_there_stays_until_the_new_one_is_whole(network, images, tmp_path, monkeypatch):
    path = tmp_path / "network"
    write_quantised(path, network, heads={"output": Head((5,), "linear")})
    before = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    save = tf.saved_model.save

    def full(module, folder, **options):
        save(module, folder, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_quantised(path, network, heads={"output": Head((5,), "softmax")})
    assert {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["network"]
    monkeypatch.undo()
    write_quantised(path, network, heads={"output": Head((5,), "softmax")})
    np.testing.assert_allclose(np.sum(load_quantised(path, (8, 6, 2))(images), axis=-1), 1, rtol=1e-5)
