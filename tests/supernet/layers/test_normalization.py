"""Masked normalisation: what Keras's layers make of the active channels alone, and zeros elsewhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.supernet.layers.normalization import (
    MaskedBatchNormalization,
    MaskedLayerNormalization,
    MaskedRMSNormalization,
)
from tas_tf.supernet.layers.statistics import running_momentum

CHANNELS = 6
KEPT = np.array([1, 1, 0, 1, 0, 1], np.float32)
ACTIVE = KEPT > 0


def features(seed=0, shape=(4, 3, 5, CHANNELS)):
    values = np.random.default_rng(seed).normal(2.0, 3.0, shape).astype("float32")
    return values * KEPT


def filled(layer, *call, seed=1):
    """Builds a layer and draws its weights."""
    layer(*call)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return layer


def narrowed(masked, keras_class, rank=4):
    """Keras's own layer on the active channels."""
    config = {key: value for key, value in masked.get_config().items() if key != "name"}
    layer = keras_class.from_config(config)
    layer.build((*[None] * (rank - 1), int(KEPT.sum())))
    for own, full in zip(layer.weights, masked.weights, strict=True):
        own.assign(np.array(full)[ACTIVE])
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False}, {"synchronized": True}, {"epsilon": 1e-7}, {"momentum": 0.5}],
    ids=str,
)
def test_batch_normalization(options, training):
    inputs = features()
    masked = filled(MaskedBatchNormalization(**options), inputs, KEPT)
    own = narrowed(masked, keras.layers.BatchNormalization)
    outputs = masked(inputs, KEPT, training=training).numpy()
    np.testing.assert_array_equal(outputs[..., ~ACTIVE], 0.0)
    np.testing.assert_allclose(outputs[..., ACTIVE], own(inputs[..., ACTIVE], training=training), rtol=1e-4, atol=1e-5)
    for full, wanted in zip(masked.weights, own.weights, strict=True):
        np.testing.assert_allclose(np.array(full)[ACTIVE], wanted, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, CHANNELS), (4, 5, CHANNELS), (2, 3, 2, 2, CHANNELS)])
def test_batch_normalization_of_any_rank(shape):
    inputs = features(shape=shape)
    masked = filled(MaskedBatchNormalization(), inputs, KEPT)
    own = narrowed(masked, keras.layers.BatchNormalization, rank=len(shape))
    outputs = masked(inputs, KEPT, training=True).numpy()
    np.testing.assert_allclose(outputs[..., ACTIVE], own(inputs[..., ACTIVE], training=True), rtol=1e-4, atol=1e-5)


def test_batch_normalization_keeps_tiny_variances_apart():
    inputs = 1e-3 * features()
    masked = MaskedBatchNormalization(epsilon=1e-9)
    outputs = masked(inputs, KEPT, training=True).numpy()[..., ACTIVE]
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 1.0, rtol=1e-3)


def test_batch_normalization_without_a_mask_is_keras():
    inputs = np.random.default_rng(0).normal(size=(4, 3, 3, 5)).astype("float32")
    ours, keras_layer = MaskedBatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(ours(inputs, training=True), keras_layer(inputs, training=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, keras_layer.moving_variance, rtol=1e-5)


def test_batch_normalization_can_leave_its_running_statistics():
    inputs = features()
    masked = filled(MaskedBatchNormalization(), inputs, KEPT)
    before = masked.get_weights()
    with running_momentum(1.0):
        masked(inputs, KEPT, training=True)
    for one, other in zip(masked.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_normalization_gradient():
    inputs = features()
    masked = filled(MaskedBatchNormalization(), inputs, KEPT)
    own = narrowed(masked, keras.layers.BatchNormalization)
    upstream = np.random.default_rng(5).normal(size=inputs.shape).astype("float32")

    def gradients(layer, images, flow, *mask):
        images = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images, *mask, training=True) * flow)
        return tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])

    found = gradients(masked, inputs, upstream, KEPT)
    wanted = gradients(own, inputs[..., ACTIVE], upstream[..., ACTIVE])
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.numpy()[..., ACTIVE], other, rtol=1e-3, atol=1e-4)
    for full in found[1:]:
        np.testing.assert_array_equal(full.numpy()[~ACTIVE], 0.0)


LAYER_NORM = (MaskedLayerNormalization, keras.layers.LayerNormalization)
RMS_NORM = (MaskedRMSNormalization, keras.layers.RMSNormalization)


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        *((LAYER_NORM, options) for options in ({}, {"scale": False}, {"center": False}, {"epsilon": 0.1})),
        *((RMS_NORM, options) for options in ({}, {"epsilon": 0.1})),
    ],
)
def test_normalisation_over_channels(classes, options):
    inputs, (masked_class, keras_class) = features(), classes
    masked = filled(masked_class(**options), inputs, KEPT)
    own = narrowed(masked, keras_class)
    outputs = masked(inputs, KEPT).numpy()
    np.testing.assert_array_equal(outputs[..., ~ACTIVE], 0.0)
    np.testing.assert_allclose(outputs[..., ACTIVE], own(inputs[..., ACTIVE]), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
def test_layer_normalization_that_does_not_centre():
    inputs = features()
    masked = filled(MaskedLayerNormalization(rms_scaling=True), inputs, KEPT)
    own = narrowed(masked, keras.layers.LayerNormalization)
    np.testing.assert_allclose(
        masked(inputs, KEPT).numpy()[..., ACTIVE], own(inputs[..., ACTIVE]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("masked_class", [MaskedBatchNormalization, MaskedLayerNormalization, MaskedRMSNormalization])
def test_bfloat16(masked_class):
    inputs = features()
    exact, rough = masked_class(), masked_class(dtype="mixed_bfloat16")
    outputs = rough(inputs, KEPT)
    assert outputs.dtype == tf.bfloat16
    wanted = exact(inputs, KEPT).numpy()
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=0.02 * np.abs(wanted).max())
