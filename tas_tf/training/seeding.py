"""Where randomness starts: one seed for everything."""

import keras
import tensorflow as tf


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras.

    Args:
        seed: From 0 to 2**32 - 1.
        deterministic: Also choose kernels whose results do not depend on timing. Slower, and can't be undone
            within the process.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
