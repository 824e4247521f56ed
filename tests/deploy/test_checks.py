"""Networks that can't be exported are rejected, with the reason, before anything is trained."""

import re

import keras
import pytest
import tensorflow as tf

from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.errors import ExportError
from tas_tf.errors import UserError
from tests.deploy.test_inference import FRONTS, network


class AlwaysDropped(keras.layers.Dropout):
    """Monte Carlo dropout in its usual form."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class Bessel(keras.layers.Layer):
    """A layer that TFLite has no operation for."""

    def call(self, inputs):
        return tf.math.bessel_i0(inputs / 255)


def test_the_tutorial_network_passes():
    check_deployable(network(*FRONTS["tutorial"]()))


def test_preprocessing_can_be_inside():
    check_deployable(network(), preprocessing_layers=[keras.layers.Rescaling(1 / 255)], tflite=False)


def test_a_layer_that_is_random_in_inference_is_named():
    with pytest.raises(ExportError, match=r"`always` \(AlwaysDropped\) is random in inference"):
        check_deployable(network(AlwaysDropped(0.5, name="always")))


def test_a_random_layer_is_named_behind_operations_and_in_nested_models():
    inner = network(keras.layers.Rescaling(1 / 255), lambda x: 0.5 * x, AlwaysDropped(0.5, name="always"))
    model = keras.Sequential([inner, keras.layers.Softmax()])
    with pytest.raises(ExportError, match=r"`always` \(AlwaysDropped\) is random in inference"):
        check_deployable(model)


def test_a_random_network_is_refused_if_the_layer_can_not_be_found(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("no copy")

    monkeypatch.setattr(keras.models, "clone_model", fail)
    with pytest.raises(ExportError, match="The network is random in inference"):
        check_deployable(network(AlwaysDropped(0.5)))


def test_models_that_share_layers():
    base = network()
    block = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.Rescaling(1 / 255)])
    images = keras.Input((16, 16, 3))
    training = keras.Model(images, base(block(images)))
    other = keras.Input((16, 16, 3))
    inference = keras.Model(other, base(other))
    for model in (base, keras.Sequential([base, keras.layers.Softmax()]), training, inference, network(block)):
        check_deployable(model, tflite=False)


def test_an_operation_that_tflite_lacks_is_named_in_plain_words(capfd):
    with pytest.raises(ExportError) as raised:
        check_deployable(network(lambda x: keras.ops.erfinv(x / 255)))
    named, reason = str(raised.value).split(". ")
    assert re.fullmatch(r"Can't convert operation `erfinv\w*` \(Erfinv\)", named)
    assert reason == "The model can't be converted to TFLite (fp32): TFLite has no operation for Erfinv."
    assert "Custom ops" not in capfd.readouterr().err


def test_a_layer_without_an_operation_in_tflite_is_named():
    model = network(Bessel(name="bessel"))
    with pytest.raises(ExportError, match=r"Can't convert layer `bessel` \(Bessel\)\. .*no operation for BesselI0\."):
        check_deployable(model)
    check_deployable(model, tflite=False)


def test_what_does_not_map_images_to_outputs():
    check_deployable(keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1)]))
    with pytest.raises(UserError, match=r"inputs \[batch, \.\.\.\], such as images"):
        check_deployable(keras.Sequential([keras.Input(()), keras.layers.Rescaling(2.0)]))
