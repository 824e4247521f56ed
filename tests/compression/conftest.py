"""A trained classifier of digits and a user's data for it."""

import keras
import numpy as np
import pytest

from tas_tf.zoo.loading import load_file
from tests.digits import tiny_task


@pytest.fixture(scope="module")
def model(trained_tiny) -> keras.Model:
    return load_file(trained_tiny)


@pytest.fixture(scope="module")
def arrays() -> list[tuple[np.ndarray, np.ndarray]]:
    """Digits for training and for validation as a user would have them: float32, standardised."""
    task = tiny_task()
    datasets = (task.plain(task.indices), task.test())
    return [tuple(map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))) for data in datasets]
