import keras
import numpy as np
import tensorflow as tf

from tas_tf.training.seeding import seed_everything


def test_same_seed_same_numbers():
    def draw(seed):
        seed_everything(seed)
        return np.concatenate(
            [np.random.rand(2), tf.random.uniform([2]), keras.initializers.GlorotUniform()((1, 2))[0]]
        )

    np.testing.assert_array_equal(draw(3), draw(3))
    assert (draw(3) != draw(4)).all()


def test_deterministic_is_asked_of_tensorflow(monkeypatch):
    calls = []
    # Can't be undone within a process, so other tests must be spared.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    seed_everything(0)
    assert not calls
    seed_everything(0, deterministic=True)
    assert calls == [1]
