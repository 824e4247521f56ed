"""Fake quantisation: which layers can't have it, and ranges against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

from tas_tf.data.task import Task
from tas_tf.qat.quantise import QatError, calibrate, quantise, refused_layers
from tas_tf.qat.twin import make_twin
from tas_tf.zoo.loading import load_file
from tests.digits import tiny_network
from tests.networks import classify, conv_bn, make, randomize


def twin_of(body) -> tf_keras.Model:
    images = keras.Input((8, 8, 3))
    return make_twin(randomize(keras.Model(images, body(images))))


def _mixed(images):
    """Layers that can be quantised between three that can't: scaled, norm, product."""
    x = conv_bn(layers.Rescaling(0.5, name="scaled")(images), 6)
    y = layers.BatchNormalization(name="norm")(layers.MaxPooling2D(2)(x))
    y = layers.LeakyReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3)(y)))
    z = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(layers.Concatenate()([y, y])))
    z = layers.BatchNormalization()(layers.Dense(4)(z))
    return layers.Dense(5)(layers.Multiply(name="product")([z, layers.Dropout(0.1)(z)]))


def test_all_layers_that_are_refused_are_named_and_only_these():
    twin = twin_of(_mixed)
    expected = ["scaled (Rescaling)", "norm (BatchNormalization)", "product (Multiply)"]
    assert sorted(refused_layers(twin)) == sorted(expected)
    with pytest.raises(QatError, match="can't take the layers") as caught:
        quantise(twin)
    named = {layer.name for layer in twin.layers if f"{layer.name} ({type(layer).__name__})" in str(caught.value)}
    assert named == {"scaled", "norm", "product"}


def test_normalisation_is_refused_behind_an_activation_inside_a_layer():
    def body(images):
        x = layers.Conv2D(6, 3, activation="relu", name="conv")(images)
        return classify(conv_bn(layers.BatchNormalization(name="norm")(x), 4))

    with pytest.raises(QatError, match=r"can't take the layers norm \(BatchNormalization\)\.$"):
        quantise(twin_of(body))


def test_of_many_refused_layers_some_are_named():
    def body(images):
        x = conv_bn(images, 6)
        for number in range(10):
            x = layers.ELU(name=f"elu_{number}")(x)
        return classify(x)

    with pytest.raises(QatError, match=r"elu_0 \(ELU\), .*elu_7 \(ELU\) and 2 more\.$"):
        quantise(twin_of(body))


@pytest.mark.parametrize("name", ["depthwise", "flatten"])
def test_what_can_be_quantised_is_and_the_twin_stays(name):
    twin = make_twin(randomize(make(name)))
    before = twin.get_weights()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    outputs = twin(images).numpy()
    network = quantise(twin)
    assert refused_layers(twin) == []
    for variable in network.weights:
        variable.assign(tf.zeros_like(variable))
    for one, other in zip(twin.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(twin(images), outputs)


def _branches() -> keras.Model:
    """A convolution with a bias that makes all positive, and one with batch normalisation and ReLU."""
    images = keras.Input((4, 4, 2), name="images")
    biased = layers.Conv2D(3, 1, name="biased")(images)
    y = layers.Conv2D(3, 1, use_bias=False, strides=2, name="conv")(images)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name="norm")(y))
    pooled = [layers.GlobalAveragePooling2D()(part) for part in (biased, y)]
    return randomize(keras.Model(images, layers.Dense(4)(layers.Add()(pooled))))


def _exact(rng: np.random.Generator, shape: tuple[int, ...], limit: int) -> np.ndarray:
    """Numbers that rounding to 8 bits leaves as they are, the largest among them: 127ths of 1, or 255ths."""
    numbers = rng.integers(-limit if limit == 127 else 0, limit + 1, shape)
    numbers.reshape(-1, shape[-1])[0] = limit
    numbers.reshape(-1, shape[-1])[1] = 0
    return (numbers / limit).astype("float32")


def test_a_range_is_the_mean_over_batches():
    """Weights and images are such that rounding changes nothing up to the activations looked at."""
    rng = np.random.default_rng(0)
    twin = make_twin(_branches())
    kernels = {name: _exact(rng, (1, 1, 2, 3), 127) for name in ("biased", "conv")}
    bias = np.array([2.0, 3.0, 4.0], np.float32)
    twin.get_layer("biased").set_weights([kernels["biased"], bias])
    twin.get_layer("conv").set_weights([kernels["conv"]])
    gamma, beta = twin.get_layer("norm").get_weights()[:2]
    batches = [_exact(rng, (count, 4, 4, 2), 255) for count in (8, 8, 3)]

    biased, rectified = [], []
    for batch in batches:
        biased.append((batch @ kernels["biased"][0, 0] + bias).max())
        found = batch[:, ::2, ::2] @ kernels["conv"][0, 0]
        normal = (found - found.mean((0, 1, 2))) / np.sqrt(found.var((0, 1, 2)) + 1e-3)
        rectified.append(np.maximum(normal * gamma + beta, 0).max())
        assert (batch @ kernels["biased"][0, 0] + bias).min() > 0  # yet ranges include 0

    network = quantise(twin)
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=tf.TensorSpec((None, 4, 4, 2)))
    calibrate(network, dataset)
    ranges = {variable.name.split(":")[0]: variable.numpy() for variable in network.weights}
    assert ranges["quant_biased/post_activation_min"] == ranges["quant_relu/output_min"] == 0
    assert ranges["quant_biased/post_activation_max"] == pytest.approx(np.mean(biased), rel=1e-5)
    assert ranges["quant_relu/output_max"] == pytest.approx(np.mean(rectified), rel=1e-4)
    assert np.std(rectified) > 0.01  # so a last or a largest one would be something else
    np.testing.assert_allclose(ranges["quant_conv/kernel_max"], np.abs(kernels["conv"]).max((0, 1, 2)), rtol=1e-6)


def _digits(count: int, batch: int) -> tf.data.Dataset:
    task = Task.load("digits")
    return task.shuffled(task.indices, batch, count).map(lambda images, _: images)


def test_calibration_sets_ranges_alone():
    network = quantise(make_twin(randomize(tiny_network())))
    names = [variable.name for variable in network.weights]
    before = network.get_weights()
    calibrate(network, _digits(2, 32))
    for name, one, other in zip(names, before, network.get_weights(), strict=True):
        if name.endswith(("_min:0", "_max:0")):
            # Those of what is rectified stand at -6 first.
            assert not np.array_equal(one, other) or (name.startswith("quantize_layer") and not other.any()), name
        else:
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_the_toolkits_own_average_comes_back():
    network = quantise(make_twin(randomize(tiny_network())))
    original = quant_ops.MovingAvgQuantize

    def broken():
        yield from _digits(1, 8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        calibrate(network, broken())
    assert quant_ops.MovingAvgQuantize is original
    calibrate(network, _digits(1, 8))
    assert quant_ops.MovingAvgQuantize is original


def test_calibrated_scores_are_near_those_of_the_float_network(trained_tiny):
    twin = make_twin(load_file(trained_tiny))
    network = quantise(twin)
    images, labels = Task.load("digits").test_arrays()
    expected = twin(images).numpy()

    def agreement() -> float:
        return float((network(images, training=False).numpy().argmax(-1) == expected.argmax(-1)).mean())

    assert agreement() < 0.9  # the input's range is empty at first
    calibrate(network, _digits(10, 128))
    found = network(images, training=False).numpy()
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()
    assert agreement() > 0.97
    assert abs((found.argmax(-1) == labels).mean() - (expected.argmax(-1) == labels).mean()) < 0.02


def test_separable_convolutions_do_not_take_the_names_of_others():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv2d")(images)
    x = layers.SeparableConv2D(4, 3, name="separable_conv2d")(x)
    x = layers.Conv2D(4, 1, name="conv2d_40")(layers.DepthwiseConv2D(3, name="depthwise_conv2d_7")(x))
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    twin = make_twin(model)
    pixels = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    network = quantise(twin)
    calibrate(network, tf.data.Dataset.from_tensors(pixels))
    np.testing.assert_allclose(network(pixels, training=False), twin(pixels), atol=0.1)


def test_a_network_of_dense_layers_alone_is_taken():
    images = keras.Input((4, 4, 1))
    hidden = keras.layers.Dense(6, activation="relu")(keras.layers.Flatten()(images))
    network = quantise(make_twin(keras.Model(images, keras.layers.Dense(3)(hidden))))
    assert network.output_shape == (None, 3)
