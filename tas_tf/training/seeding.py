"""Seeds all random number generators at once."""

import keras
import tensorflow as tf


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras.

    Args:
        seed: Random seed, from 0 to 2**32 - 1.
        deterministic: Whether to use only kernels whose results don't depend on timing. They are slower, and the
            choice can't be undone within the process.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
