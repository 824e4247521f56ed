"""The searchable convolution against its definition: candidates normalised one by one, widened, weighed and summed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.supernet.layers.plan import ChannelPlan
from tas_tf.supernet.layers.searchable_conv import SearchableConv
from tas_tf.supernet.layers.statistics import running_momentum
from tests.supernets import interpolation_matrix

FILTERS, CANDIDATES = 10, (3, 4, 5, 7, 10)
IMAGES, SEQUENCES, VOLUMES = (4, 7, 6, 3), (5, 9, 3), (2, 5, 4, 6, 3)

#: Convolution (class, options), BN options (None: no BN), input shape.
FORMS = {
    "3x3": ("Conv2D", {"kernel_size": 3, "padding": "same"}, {}, IMAGES),
    "3x3 with bias before BN": ("Conv2D", {"kernel_size": 3, "use_bias": True}, {}, IMAGES),
    "strides": ("Conv2D", {"kernel_size": 3, "strides": 2, "padding": "same"}, {}, IMAGES),
    "dilation": ("Conv2D", {"kernel_size": 3, "dilation_rate": 2, "padding": "same"}, {}, IMAGES),
    "uneven": ("Conv2D", {"kernel_size": (3, 1), "strides": (2, 1), "dilation_rate": 1}, {}, IMAGES),
    "1x1": ("Conv2D", {"kernel_size": 1}, {}, IMAGES),
    "1x1 with bias and strides": ("Conv2D", {"kernel_size": 1, "strides": 2, "use_bias": True}, {}, IMAGES),
    "1x1 with uneven strides": ("Conv2D", {"kernel_size": 1, "strides": (1, 2), "padding": "same"}, {}, IMAGES),
    "1x1 from many": ("Conv2D", {"kernel_size": 1, "strides": 2}, {}, (4, 5, 5, 16)),
    "no scale": ("Conv2D", {"kernel_size": 3}, {"scale": False}, IMAGES),
    "no offset": ("Conv2D", {"kernel_size": 1}, {"center": False}, IMAGES),
    "neither": ("Conv2D", {"kernel_size": 3}, {"center": False, "scale": False}, IMAGES),
    "synchronized": ("Conv2D", {"kernel_size": 3}, {"synchronized": True}, IMAGES),
    "no BN": ("Conv2D", {"kernel_size": 3, "use_bias": True}, None, IMAGES),
    "no BN, no bias": ("Conv2D", {"kernel_size": 1}, None, IMAGES),
    "activation": ("Conv2D", {"kernel_size": 3, "use_bias": True, "activation": "relu"}, None, IMAGES),
    "activation that shifts": ("Conv2D", {"kernel_size": 1, "activation": "sigmoid"}, None, IMAGES),
    "separable": ("SeparableConv2D", {"kernel_size": 3, "padding": "same", "use_bias": True}, {}, IMAGES),
    "separable with strides": ("SeparableConv2D", {"kernel_size": 3, "strides": 2}, {}, IMAGES),
    "separable from many": ("SeparableConv2D", {"kernel_size": 3}, {}, (4, 5, 5, 16)),
    "separable without BN": ("SeparableConv2D", {"kernel_size": 3, "use_bias": True}, None, IMAGES),
    "separable with a multiplier": ("SeparableConv2D", {"kernel_size": 3, "depth_multiplier": 2}, {}, IMAGES),
    "transposed": (
        "Conv2DTranspose",
        {"kernel_size": 3, "strides": 2, "padding": "same", "use_bias": True},
        {},
        IMAGES,
    ),
    "transposed with gaps": ("Conv2DTranspose", {"kernel_size": 1, "strides": 2}, {}, IMAGES),
    "transposed without BN": (
        "Conv2DTranspose",
        {"kernel_size": (3, 2), "strides": (2, 3), "output_padding": 1, "use_bias": True, "activation": "relu"},
        None,
        IMAGES,
    ),
    # Not dilated: some builds of TensorFlow have no such kernel for CPUs.
    "transposed 1d": ("Conv1DTranspose", {"kernel_size": 3, "strides": 2}, {}, SEQUENCES),
    "transposed 3d": ("Conv3DTranspose", {"kernel_size": 2, "strides": 2}, {}, VOLUMES),
    "dense": ("Dense", {"use_bias": True}, {}, IMAGES),
    "dense on vectors": ("Dense", {"use_bias": True, "activation": "relu"}, None, (6, 3)),
    "1d": ("Conv1D", {"kernel_size": 3, "strides": 2}, {}, SEQUENCES),
    "1d causal": ("Conv1D", {"kernel_size": 3, "padding": "causal", "dilation_rate": 2}, {}, SEQUENCES),
    "separable 1d": ("SeparableConv1D", {"kernel_size": 3, "padding": "same"}, {}, SEQUENCES),
    "3d": ("Conv3D", {"kernel_size": (2, 1, 3), "padding": "same"}, {}, VOLUMES),
}
#: Indices of the drawn candidates, and their weights.
SAMPLES = {
    "two": ((1, 3), (0.3, 0.7)),
    "three": ((4, 0, 2), (0.5, 0.2, 0.3)),
    "one": ((3,), (1.0,)),
    "widest without weight": ((4, 1), (0.0, 1.0)),
}


def taps_of(sample):
    plan = ChannelPlan([{"name": "unit", "width": FILTERS, "candidates": list(CANDIDATES)}], [], {})
    indices, weights = sample
    return plan((tf.constant([indices]), tf.constant([weights]), tf.ones([1, 1])))["units"]["unit"]


def make(form, *, seed=0, dtype="float32"):
    """The layer with random weights, and inputs whose channels have different means."""
    conv_class, options, norm, shape = FORMS[form]
    size = {"units": FILTERS} if conv_class == "Dense" else {"filters": FILTERS}
    conv = getattr(keras.layers, conv_class)(**size, **{"use_bias": False, **options})
    norm = None if norm is None else keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.8, **norm).get_config()
    layer = SearchableConv(conv.get_config(), conv_class, norm, CANDIDATES, dtype=dtype)
    rng = np.random.default_rng(seed)
    inputs = (rng.normal(size=shape) + rng.normal(size=shape[-1])).astype("float32")
    layer(inputs, taps_of(SAMPLES["two"]))
    for weight in layer.weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-1.0, 1.0)
        weight.assign(rng.uniform(low, high, weight.shape))
    return layer, inputs


def full_convolution(layer, inputs):
    """Keras's own layer on the same weights, its activation left out."""
    conv = getattr(keras.layers, layer.conv_class).from_config({**layer.conv, "activation": None})
    conv.build(inputs.shape)
    weights = {weight.name: weight for weight in layer.weights}
    for weight in conv.weights:
        weight.assign(np.array(weights[weight.name]).reshape(weight.shape))
    return np.float64(conv(inputs).numpy())


def reference(layer, inputs, sample, training):
    """`sum_k w_k CWI(BN_k(conv(x)[..., :c_k]), m)`, then the activation."""
    features = full_convolution(layer, inputs)
    drawn = [(index, weight) for index, weight in zip(*sample, strict=True) if weight > 0]
    target = max(CANDIDATES[index] for index, _ in drawn)
    outputs = np.zeros_like(features)
    for index, weight in drawn:
        width = CANDIDATES[index]
        kept = features[..., :width]
        if layer.norm is not None:
            axes = tuple(range(kept.ndim - 1))
            mean = kept.mean(axes) if training else np.array(layer.moving_mean)[:width]
            variance = kept.var(axes) if training else np.array(layer.moving_variance)[:width]
            kept = (kept - mean) / np.sqrt(variance + layer.norm["epsilon"])
            if layer.norm["scale"]:
                kept = kept * np.array(layer.gamma)[index, :width]
            if layer.norm["center"]:
                kept = kept + np.array(layer.beta)[index, :width]
        outputs[..., :target] += weight * (kept @ interpolation_matrix(width, target))
    return layer.activation(tf.constant(outputs, tf.float32)).numpy(), target


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_its_definition(form, training):
    layer, inputs = make(form)
    for name, sample in SAMPLES.items():
        with running_momentum(1.0):
            outputs = layer(inputs, taps_of(sample), training=training).numpy()
        wanted, target = reference(layer, inputs, sample, training)
        assert outputs.shape == layer.compute_output_shape(inputs.shape) == wanted.shape
        np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max(), err_msg=name)
        if layer.conv.get("activation") != "sigmoid":
            np.testing.assert_array_equal(outputs[..., target:], 0.0)


@pytest.mark.parametrize("form", [form for form, (_, _, norm, _) in FORMS.items() if norm is not None])
def test_running_statistics_move_as_those_of_keras(form):
    layer, inputs = make(form)
    norm = keras.layers.BatchNormalization.from_config(layer.norm)
    norm.build((None,) * (inputs.ndim - 1) + (FILTERS,))
    norm.moving_mean.assign(layer.moving_mean)
    norm.moving_variance.assign(layer.moving_variance)
    norm(full_convolution(layer, inputs).astype("float32"), training=True)
    layer(inputs, taps_of(SAMPLES["two"]), training=True)
    np.testing.assert_allclose(layer.moving_mean, norm.moving_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, norm.moving_variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["3x3 with bias before BN", "1x1 with bias and strides"])
def test_running_statistics_stay_or_are_averaged_on_request(form):
    layer, inputs = make(form)
    taps, before = taps_of(SAMPLES["two"]), layer.get_weights()
    with running_momentum(1.0):
        layer(inputs, taps, training=True)
    layer(inputs, taps, training=False)
    for one, other in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    batches = [inputs + shift for shift in (0.0, 1.0, -3.0)]
    for number, batch in enumerate(batches):
        with running_momentum(number / (number + 1)):
            layer(batch, taps, training=True)
    features = [full_convolution(layer, batch) for batch in batches]
    axes = tuple(range(inputs.ndim - 1))
    np.testing.assert_allclose(layer.moving_mean, np.mean([f.mean(axes) for f in features], 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, np.mean([f.var(axes) for f in features], 0), rtol=1e-4)


def plain_forward(inputs, weights, kernel, gamma, beta, drawn, epsilon):
    """The definition once more, in TensorFlow, for autodiff: a plain 2-D convolution with BN in training."""
    features = tf.nn.conv2d(inputs, kernel, 1, "VALID")
    target = max(CANDIDATES[index] for index in drawn)
    outputs = 0.0
    for place, index in enumerate(drawn):
        width = CANDIDATES[index]
        kept = features[..., :width]
        mean, variance = tf.nn.moments(kept, [0, 1, 2])
        offset, scale = beta[index, :width], gamma[index, :width]
        kept = tf.nn.batch_normalization(kept, mean, variance, offset, scale, epsilon)
        outputs += weights[place] * tf.tensordot(kept, interpolation_matrix(width, target), 1)
    return tf.pad(outputs, [[0, 0], [0, 0], [0, 0], [0, FILTERS - target]])


@pytest.mark.parametrize("form", ["1x1", "1x1 from many", "3x3"])
def test_gradients_equal_autodiff_of_the_definition(form):
    _, options, _, shape = FORMS[form]
    conv = keras.layers.Conv2D(FILTERS, options["kernel_size"], use_bias=False)
    norm = keras.layers.BatchNormalization().get_config()
    layer = SearchableConv(conv.get_config(), "Conv2D", norm, CANDIDATES)
    rng = np.random.default_rng(3)
    inputs = tf.constant(rng.normal(1.0, 1.0, size=shape), tf.float32)
    drawn, shares = [1, 3], tf.constant([0.3, 0.7])
    plan = ChannelPlan([{"name": "unit", "width": FILTERS, "candidates": list(CANDIDATES)}], [], {})
    layer(inputs, taps_of(SAMPLES["two"]))
    for weight in layer.trainable_variables:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    variables = [layer.kernel.value, layer.gamma.value, layer.beta.value]
    upstream = tf.constant(rng.normal(size=(*layer.compute_output_shape(shape),)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([inputs, shares])
        taps = plan((tf.constant([drawn]), shares[None], tf.ones([1, 1])))["units"]["unit"]
        ours = tf.reduce_sum(layer(inputs, taps, training=True) * upstream)
        plain = tf.reduce_sum(plain_forward(inputs, shares, *variables, drawn, norm["epsilon"]) * upstream)
    sources = [inputs, shares, *variables]
    assert float(ours) == pytest.approx(float(plain), rel=1e-4)
    for one, other in zip(tape.gradient(ours, sources), tape.gradient(plain, sources), strict=True):
        other = tf.convert_to_tensor(other).numpy()
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("form", ["3x3", "1x1 with bias and strides", "separable", "transposed", "no BN", "dense"])
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16(form, training):
    layer, inputs = make(form, dtype="mixed_bfloat16")
    outputs = layer(inputs, taps_of(SAMPLES["two"]), training=training)
    assert outputs.dtype == tf.bfloat16
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    exact, _ = make(form)
    wanted, _ = reference(exact, inputs, SAMPLES["two"], training)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=0.05 * np.abs(wanted).max())


def test_config_round_trip():
    layer, inputs = make("3x3 with bias before BN")
    copy = SearchableConv.from_config(layer.get_config())
    copy(inputs, taps_of(SAMPLES["two"]))
    copy.set_weights(layer.get_weights())
    for training in (False, True):
        outputs = [one(inputs, taps_of(SAMPLES["three"]), training=training) for one in (layer, copy)]
        np.testing.assert_array_equal(*outputs)
