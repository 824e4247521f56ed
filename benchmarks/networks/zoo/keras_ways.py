"""Unusual ways to write a network in Keras: subclasses, nested models, policies, layers of one's own."""

from __future__ import annotations

import keras
from keras import layers, ops

import tas_tf
from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import basic_block, classify, conv, unit
from tas_tf.graph.custom import accept_lambdas

KERAS_WAYS = Catalogue()


@keras.saving.register_keras_serializable("benchmarks")
class OwnTrainStep(keras.Model):
    """A functional model that only trains differently."""

    def train_step(self, data):
        """Trains on images plus noise."""
        images, labels = data
        return super().train_step((images + 0.1 * keras.random.normal(ops.shape(images)), labels))


def _features(x):
    x = unit(x, 16)
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        x = basic_block(x, filters, strides)
    return x


@KERAS_WAYS.add("Own train_step", "a subclass of `keras.Model`, made from inputs and outputs")
def _own_train_step(x):
    return OwnTrainStep(x, classify(_features(x)))


@KERAS_WAYS.add("Nested backbone", "transfer learning: a functional backbone, called with training=False")
def _nested(x):
    images = keras.Input((32, 32, 3))
    backbone = keras.Model(images, _features(images), name="backbone")
    backbone.trainable = False
    return classify(backbone(x, training=False))


@KERAS_WAYS.add("Frozen normalisation", "BatchNormalization with trainable=False throughout")
def _frozen(x):
    model = keras.Model(x, classify(_features(x)), name="frozen_normalisation")
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return model


@KERAS_WAYS.add("Sequential", "a Sequential model that holds Sequential models")
def _sequential(x):
    def block(filters: int) -> keras.Sequential:
        return keras.Sequential(
            [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()],
        )

    end = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return keras.Sequential([keras.Input((32, 32, 3)), block(16), layers.MaxPooling2D(), block(24), block(32), *end])


@KERAS_WAYS.add("Mixed precision", "the policy mixed_bfloat16, which rounds to 8 bits", tolerance=2e-2)
def _mixed(x):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = _features(x)
    finally:
        keras.config.set_dtype_policy(before)
    return classify(x)


@keras.saving.register_keras_serializable("benchmarks")
class ChannelScale(layers.Layer):
    """Multiplies each channel by a weight."""

    def build(self, shape):
        """Makes the weights."""
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer="ones")

    def call(self, inputs):
        """Multiplies."""
        return inputs * self.scale


@keras.saving.register_keras_serializable("benchmarks")
class Mixing(layers.Layer):
    """Adds to each channel the mean of all channels."""

    def call(self, inputs):
        """Adds."""
        return inputs + ops.mean(inputs, axis=-1, keepdims=True)


@KERAS_WAYS.add("Registered layer", "a layer of one's own, declared with `keeps_channels=True`", own_code=True)
def _registered(x):
    tas_tf.register_layer(ChannelScale, keeps_channels=True, keeps_zeros=True)
    x = ChannelScale()(unit(x, 16))
    for _ in range(3):
        x = layers.ReLU()(layers.Add()([x, ChannelScale()(conv(unit(x, 16), 16))]))
    return classify(x)


@KERAS_WAYS.add("Unknown layer", "a layer of one's own that mixes channels; nothing is declared", own_code=True)
def _unknown(x):
    return classify(unit(Mixing()(unit(unit(x, 16), 16)), 24))


@KERAS_WAYS.add("Lambda", "a Lambda layer, accepted by `unsafe_load`", own_code=True)
def _lambda(x):
    accept_lambdas(lambda text: None)
    x = layers.Lambda(lambda x: x * 2.0 - 1.0)(x)
    x = layers.Lambda(lambda x: x[:, ::2, ::2], output_shape=(16, 16, 16))(unit(x, 16))
    return classify(unit(x, 24))


@KERAS_WAYS.add("Unit-norm constraint", "weights with regularisers, constraints and initialisers of Keras")
def _constrained(x):
    options = {"kernel_regularizer": "l2", "kernel_initializer": "orthogonal", "bias_constraint": "non_neg"}
    x = layers.ReLU()(conv(x, 16, kernel_constraint=keras.constraints.MaxNorm(2.0), **options))
    x = layers.SpatialDropout2D(0.0)(layers.GaussianNoise(0.0)(conv(x, 24, strides=2, **options)))
    return classify(layers.ActivityRegularization(l2=1e-4)(layers.ReLU()(x)))


@KERAS_WAYS.add("Pixels as input", "images of type uint8, rescaled inside")
def _pixels(x):
    images = keras.Input((32, 32, 3), dtype="uint8")
    return keras.Model(images, classify(_features(layers.Rescaling(1 / 127.5, -1.0)(images))), name="pixels_as_input")


@KERAS_WAYS.add("Mixed precision in float16", "mixed_float16; softmax in float32", tolerance=2e-2)
def _mixed_float16(x):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = classify(_features(x), activation=None)
    finally:
        keras.config.set_dtype_policy(before)
    return layers.Activation("softmax", dtype="float32")(x)


@KERAS_WAYS.add("Layers as activations", "`activation=LeakyReLU(0.1)` and functions in convolutions")
def _activation_layers(x):
    x = conv(x, 16, activation=layers.LeakyReLU(0.1))
    x = conv(x, 24, strides=2, activation=layers.ReLU(6.0))
    return classify(conv(conv(x, 24, activation=ops.relu6), 32, activation=keras.activations.gelu))


@KERAS_WAYS.add("Fixed batch size", "`batch_shape=(8, 32, 32, 3)`")
def _fixed_batch(x):
    images = keras.Input(batch_shape=(8, 32, 32, 3))
    return keras.Model(images, classify(_features(images)), name="fixed_batch_size")


@KERAS_WAYS.add("Spectral normalisation", "a wrapper around a convolution")
def _spectral(x):
    return classify(unit(layers.SpectralNormalization(layers.Conv2D(16, 3))(unit(x, 16)), 24))
