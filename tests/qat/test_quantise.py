"""Fake quantisation: which layers can't have it, and what they are called afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.tflite import export_tflite
from tas_tf.qat.calibrate import calibrate
from tas_tf.qat.quantise import QatError, quantise, refused_layers
from tas_tf.qat.saving import Head, load_quantised, write_quantised
from tas_tf.qat.twin import make_twin
from tests.networks import classify, conv_bn, make, randomize


def twin_of(body) -> tf_keras.Model:
    images = keras.Input((8, 8, 3))
    return make_twin(randomize(keras.Model(images, body(images))))


def _mixed(images):
    """Layers that can be quantised between three that can't: norm, curve, bend."""
    x = conv_bn(layers.Rescaling(0.5)(images), 6)
    y = layers.LayerNormalization(name="norm")(layers.MaxPooling2D(2)(x))
    y = layers.ELU(name="bend")(layers.Activation("softplus", name="curve")(y))
    y = layers.LeakyReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3)(y)))
    z = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(layers.Concatenate()([y, y])))
    z = layers.BatchNormalization()(layers.Dense(4)(z))
    return layers.Dense(5)(layers.Multiply()([z, layers.Dropout(0.1)(z)]))


def test_all_layers_that_are_refused_are_named_and_only_these():
    twin = twin_of(_mixed)
    expected = ["norm (LayerNormalization)", "curve (Activation)", "bend (ELU)"]
    assert sorted(refused_layers(twin)) == sorted(expected)
    with pytest.raises(QatError, match="can't take the layers") as caught:
        quantise(twin)
    named = {layer.name for layer in twin.layers if f"{layer.name} ({type(layer).__name__})" in str(caught.value)}
    assert named == {"norm", "curve", "bend"}


def _by_own_rules(images):
    """Layers that the toolkit has no rules for."""
    x = layers.Conv2D(6, 3, activation="relu")(layers.Rescaling(0.5, offset=0.1)(images))
    x = layers.BatchNormalization()(x)
    y = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2), shared_axes=[1, 2])(
        layers.BatchNormalization()(x)
    )
    gate = layers.Conv2D(6, 1, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    x = layers.Subtract()([layers.Average()([x, y * gate]), layers.Minimum()([x, y])])
    return classify(layers.Maximum()([x, layers.Activation("hard_silu")(x)]))


def _densely_connected(images):
    """A pooled tensor that is both concatenated and normalised, as in DenseNet."""
    x = layers.AveragePooling2D(2)(conv_bn(images, 6))
    y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    return classify(layers.ReLU()(layers.BatchNormalization()(layers.Concatenate()([x, y]))))


@pytest.mark.slow
@pytest.mark.parametrize("body", [_by_own_rules, _densely_connected])
def test_our_own_rules_round_outputs_learn_and_become_integers(body, tmp_path):
    twin = twin_of(body)
    assert refused_layers(twin) == []
    network = quantise(twin)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    calibrate(network, tf.data.Dataset.from_tensors(images))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(images, training=True) ** 2)
    assert all(gradient is not None for gradient in tape.gradient(loss, network.trainable_variables))
    outputs = network(images, training=False).numpy()
    write_quantised(tmp_path / "network", network, heads={"output": Head((), "linear")})
    path = export_tflite(
        load_quantised(tmp_path / "network", (8, 8, 3)), tmp_path / "q.tflite", format="qat_int8", calibration=images
    )
    details = Interpreter(str(path)).get_tensor_details()
    assert not any(np.issubdtype(tensor["dtype"], np.floating) for tensor in details)
    # The converter also rounds between the product and the sum of a normalisation.
    np.testing.assert_allclose(TFLiteModel(path).predict(images), outputs, atol=0.25 * np.abs(outputs).max())


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


def test_separable_convolutions_do_not_take_the_names_of_others():
    tf_keras.backend.clear_session()  # so that the toolkit's layers are numbered from the first on
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv2d")(images)
    x = layers.Conv2D(4, 1, name="conv2d_1")(layers.DepthwiseConv2D(1, name="depthwise_conv2d")(x))
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
