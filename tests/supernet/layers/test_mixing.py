"""Normalising and mixing in one map: forward against NumPy, backward against autodiff and finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from tas_tf.supernet.layers.mixing import normalise_and_mix, statistics_through_kernel

EPSILON = 1e-3


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    features = rng.normal(1.0, 2.0, size=(6, 3, 2, 5)).astype("float32")
    matrix = rng.normal(size=(5, 5)).astype("float32")
    offset = rng.normal(size=5).astype("float32")
    upstream = rng.normal(size=features.shape).astype("float32")
    return features, matrix, offset, upstream


def numpy_outputs(features, matrix, offset):
    flat = np.float64(features).reshape(-1, features.shape[-1])
    normalised = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + EPSILON)
    return (normalised @ matrix + offset).reshape(features.shape)


def gradients(function, *values, upstream):
    variables = [tf.Variable(value) for value in values]
    with tf.GradientTape() as tape:
        outputs = function(*variables)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
    return tape.gradient(loss, variables)


def test_forward_and_statistics(arrays):
    features, matrix, offset, _ = arrays
    outputs, mean, variance = normalise_and_mix(tf.constant(features), matrix, offset, epsilon=EPSILON)
    np.testing.assert_allclose(outputs, numpy_outputs(features, matrix, offset), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, features.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, features.var((0, 1, 2)), rtol=1e-5)


def test_gradient_equals_that_of_the_plain_form(arrays):
    features, matrix, offset, upstream = arrays

    def plain(features, matrix, offset):
        mean, variance = tf.nn.moments(features, [0, 1, 2])
        return tf.tensordot((features - mean) * tf.math.rsqrt(variance + EPSILON), matrix, 1) + offset

    def ours(features, matrix, offset):
        return normalise_and_mix(features, matrix, offset, epsilon=EPSILON)[0]

    wanted = gradients(plain, features, matrix, offset, upstream=upstream)
    for one, other in zip(gradients(ours, features, matrix, offset, upstream=upstream), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradient_matches_finite_differences(arrays):
    features, matrix, offset, upstream = arrays

    def ours(*values):
        return normalise_and_mix(*values, epsilon=EPSILON)[0]

    d_features, d_matrix, d_offset = gradients(ours, features, matrix, offset, upstream=upstream)
    values = [np.float64(value) for value in (features, matrix, offset)]
    for place, index, gradient in ((0, (2, 1, 0, 3), d_features), (1, (4, 2), d_matrix), (2, (1,), d_offset)):
        losses = []
        for sign in (1, -1):
            moved = [value.copy() for value in values]
            moved[place][index] += sign * 1e-5
            losses.append(np.sum(numpy_outputs(*moved) * upstream))
        assert gradient.numpy()[index] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-3, abs=1e-4)


def test_statistics_pass_no_gradient(arrays):
    features, matrix, offset, _ = arrays
    variable = tf.Variable(features)
    with tf.GradientTape() as tape:
        _, mean, variance = normalise_and_mix(variable, matrix, offset, epsilon=EPSILON)
        loss = tf.reduce_sum(mean) + tf.reduce_sum(variance)
    np.testing.assert_array_equal(tape.gradient(loss, variable), np.zeros_like(features))


def test_bfloat16(arrays):
    features, matrix, offset, upstream = arrays

    def ours(*values):
        return normalise_and_mix(*values, epsilon=EPSILON)[0]

    half = tf.cast(features, tf.bfloat16)
    outputs, mean, _ = normalise_and_mix(half, matrix, offset, epsilon=EPSILON)
    assert outputs.dtype == tf.bfloat16
    assert mean.dtype == tf.float32
    wanted = numpy_outputs(features, matrix, offset)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=0.03 * np.abs(wanted).max())
    exact = gradients(ours, features, matrix, offset, upstream=upstream)
    rough = gradients(ours, half, matrix, offset, upstream=upstream)
    assert [gradient.dtype for gradient in rough] == [tf.bfloat16, tf.float32, tf.float32]
    for one, other in zip(rough, exact, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(tf.cast(one, tf.float32), other, atol=0.05 * scale)


def test_bfloat16_where_the_mean_is_large(arrays):
    """Numbers that bfloat16 holds exactly: what is lost is lost by the computation."""
    _, matrix, offset, upstream = arrays
    features = np.random.default_rng(1).integers(62, 67, upstream.shape).astype("float32")

    def ours(*values):
        return normalise_and_mix(*values, epsilon=EPSILON)[0]

    half = tf.cast(features, tf.bfloat16)
    wanted = numpy_outputs(features, matrix, offset)
    np.testing.assert_allclose(
        tf.cast(ours(half, matrix, offset), tf.float32), wanted, atol=0.02 * np.abs(wanted).max()
    )
    exact = gradients(ours, features, matrix, offset, upstream=upstream)
    for one, other in zip(gradients(ours, half, matrix, offset, upstream=upstream), exact, strict=True):
        np.testing.assert_allclose(tf.cast(one, tf.float32), other, atol=0.03 * np.abs(other).max())


def on_two_replicas(strategy, function, *values):
    """Runs `function` with the first value halved between replicas; concatenates features, sums what is shared."""
    halves = [tf.constant(part) for part in np.split(values[0], 2)]
    upstream = [tf.constant(part) for part in np.split(values[-1], 2)]

    @tf.function
    def run():
        def each():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            images, flow = (tf.stack(parts)[number] for parts in (halves, upstream))
            with tf.GradientTape() as tape:
                sources = [images, *map(tf.constant, values[1:-1])]
                tape.watch(sources)
                outputs = function(*sources)
                loss = tf.reduce_sum(outputs * flow)
            return outputs, tape.gradient(loss, sources)

        return strategy.run(each)

    outputs, found = run()
    outputs, inputs = (np.concatenate(strategy.experimental_local_results(part)) for part in (outputs, found[0]))
    return outputs, inputs, [sum(strategy.experimental_local_results(part)) for part in found[1:]]


def test_synchronized_replicas_equal_one_with_the_whole_batch(arrays, two_replicas):
    features, matrix, offset, upstream = arrays

    def synchronized(*values):
        return normalise_and_mix(*values, epsilon=EPSILON, synchronized=True)[0]

    outputs, d_features, (d_matrix, d_offset) = on_two_replicas(
        two_replicas, synchronized, features, matrix, offset, upstream
    )
    np.testing.assert_allclose(outputs, numpy_outputs(features, matrix, offset), rtol=1e-4, atol=1e-5)
    wanted = gradients(synchronized, features, matrix, offset, upstream=upstream)
    for found, one in zip((d_features, d_matrix, d_offset), wanted, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-5)


def test_replicas_that_are_not_synchronized_use_their_own_statistics(arrays, two_replicas):
    features, matrix, offset, upstream = arrays

    def alone(*values):
        return normalise_and_mix(*values, epsilon=EPSILON)[0]

    outputs, *_ = on_two_replicas(two_replicas, alone, features, matrix, offset, upstream)
    wanted = np.concatenate([numpy_outputs(half, matrix, offset) for half in np.split(features, 2)])
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean_over_deviation", [0, 3, 30, 300])
def test_statistics_through_a_kernel(mean_over_deviation):
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(8, 10, 10, 6)) + mean_over_deviation).astype("float32")
    kernel = rng.normal(size=(6, 20)).astype("float32")
    mean, variance = statistics_through_kernel(tf.constant(inputs), tf.constant(kernel))
    outputs = np.float64(inputs).reshape(-1, 6) @ np.float64(kernel)
    np.testing.assert_allclose(mean, outputs.mean(0), rtol=1e-5, atol=1e-5 * np.abs(outputs).max())
    np.testing.assert_allclose(variance, outputs.var(0), rtol=1e-4)


def test_statistics_through_a_kernel_pass_the_gradient_of_the_outputs_statistics(two_replicas):
    rng = np.random.default_rng(1)
    inputs = (rng.normal(size=(4, 3, 3, 3)) + 2.0).astype("float32")
    kernel, flow = rng.normal(size=(3, 7)).astype("float32"), rng.normal(size=(2, 7)).astype("float32")

    def ours(inputs, kernel):
        return tf.stack(statistics_through_kernel(inputs, kernel, synchronized=True))

    def plain(inputs, kernel):
        return tf.stack(tf.nn.moments(tf.tensordot(inputs, kernel, 1), [0, 1, 2]))

    wanted = gradients(plain, inputs, kernel, upstream=flow)
    for one, other in zip(gradients(ours, inputs, kernel, upstream=flow), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Both replicas have the same statistics, so half of the loss on each is the whole loss.
    each = np.concatenate([flow / 2] * 2)
    outputs, d_inputs, (d_kernel,) = on_two_replicas(two_replicas, ours, inputs, kernel, each)
    np.testing.assert_allclose(outputs[:2], plain(inputs, kernel), rtol=1e-4)
    np.testing.assert_allclose(outputs[2:], outputs[:2])
    np.testing.assert_allclose(d_inputs, wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_kernel, wanted[1], rtol=1e-4, atol=1e-5)
