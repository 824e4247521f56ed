"""What can't become a file is known, and named, before anything is trained."""

import keras
import pytest
import tensorflow as tf

from tas_tf.deploy.checks import check_deployable
from tas_tf.deploy.errors import ExportError
from tas_tf.errors import UserError
from tests.deploy.test_inference import FRONTS, network


class AlwaysDropped(keras.layers.Dropout):
    """Monte Carlo dropout as many write it."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class Bessel(keras.layers.Layer):
    """Something that TFLite has no operation for."""

    def call(self, inputs):
        return tf.math.bessel_i0(inputs / 255)


def test_the_tutorial_network_passes():
    check_deployable(network(*FRONTS["tutorial"]()))


def test_preprocessing_can_be_inside():
    check_deployable(network(), preprocessing_layers=[keras.layers.Rescaling(1 / 255)], tflite=False)


def test_a_layer_that_is_random_in_inference_is_named():
    with pytest.raises(ExportError, match=r"`always` \(AlwaysDropped\) is random in inference"):
        check_deployable(network(AlwaysDropped(0.5, name="always")))


def test_a_layer_without_an_operation_in_tflite_is_named():
    model = network(Bessel(name="bessel"))
    with pytest.raises(ExportError, match=r"Can't convert layer `bessel` \(Bessel\)\. "):
        check_deployable(model)
    check_deployable(model, tflite=False)


def test_what_is_no_classifier_of_images():
    with pytest.raises(UserError, match="one output"):
        check_deployable(keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1)]))
