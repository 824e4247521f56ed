import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.training.optimizers import add_l2, arch_adam, cosine, sgd


def test_cosine_with_and_without_warmup():
    steps = np.arange(0, 60, 7)
    plain = cosine(0.1, epochs=6, steps_per_epoch=10)
    np.testing.assert_allclose([plain(step) for step in steps], 0.05 * (1 + np.cos(np.pi * steps / 60)), atol=1e-7)
    warm = cosine(0.1, epochs=6, steps_per_epoch=10, warmup_epochs=1)
    assert float(warm(0)) > 0
    assert float(warm(10)) == pytest.approx(0.1)
    assert float(warm(35)) == pytest.approx(0.05)
    assert float(warm(60)) == pytest.approx(0, abs=1e-8)
    with pytest.raises(ValueError, match="warmup_epochs"):
        cosine(0.1, epochs=2, steps_per_epoch=10, warmup_epochs=2)


def test_add_l2():
    table = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    sparse = tf.IndexedSlices(tf.constant([[1.0, 1.0]]), tf.constant([1]), tf.constant([2, 2]))
    dense = tf.constant([[5.0, 5.0], [5.0, 5.0]])
    results = add_l2([dense, None, sparse], [table, table, keras.Variable(table)], 0.1)
    np.testing.assert_allclose(results[0], [[5.1, 5.2], [5.3, 5.4]], rtol=1e-6)
    assert results[1] is None
    np.testing.assert_allclose(results[2], [[0.1, 0.2], [1.3, 1.4]], rtol=1e-6)
    assert add_l2([sparse], [table], 0.0) == [sparse]
    with pytest.raises(ValueError, match="zip"):
        add_l2([dense], [], 0.1)


def test_add_l2_sums_to_one_penalty_over_replicas(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([2.0])

    @tf.function
    def step():
        def one_replica():
            return add_l2([tf.zeros(1)], [variable], 0.1)[0]

        return two_replicas.reduce("SUM", two_replicas.run(one_replica), axis=None)

    np.testing.assert_allclose(step(), [0.2], rtol=1e-6)


def test_sgd_puts_l2_through_nesterov_momentum():
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    variable = keras.Variable(value)
    optimizer = sgd(0.1, l2=0.5)
    for gradient in ([0.3, 0.1], [-0.2, 0.4], [0.1, 0.0]):
        penalised = np.array(gradient) + 0.5 * value
        velocity = 0.9 * velocity - 0.1 * penalised
        value = value + 0.9 * velocity - 0.1 * penalised
        optimizer.apply([tf.constant(gradient)], [variable])
    np.testing.assert_allclose(variable, value, rtol=1e-5)
    copy = type(optimizer).from_config(optimizer.get_config())
    assert (copy.l2, copy.momentum, copy.nesterov) == (0.5, 0.9, True)


def test_sgd_applies_l2_once_for_two_replicas(two_replicas):
    with two_replicas.scope():
        variable = keras.Variable([2.0])
        optimizer = sgd(0.1, momentum=0.0, l2=0.5)
        optimizer.build([variable])

    @tf.function
    def step():
        two_replicas.run(lambda: optimizer.apply([tf.constant([0.5])], [variable]))

    step()
    # The gradients of both replicas are summed, the penalty is added once.
    np.testing.assert_allclose(variable, [2.0 - 0.1 * (0.5 + 0.5 + 0.5 * 2.0)], rtol=1e-6)


def test_settings_of_the_paper():
    assert type(sgd(0.1)) is keras.optimizers.SGD
    adam = arch_adam(1e-3)
    assert (adam.beta_1, adam.beta_2, adam.epsilon, adam.weight_decay) == (0.5, 0.999, 1e-8, None)
