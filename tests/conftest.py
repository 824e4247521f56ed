"""What every test shares: two logical CPU devices that stand in for two GPUs."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf

from tas_tf.training import make_strategy

# Must happen before TensorFlow touches a device, hence at import.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two replicas; the one strategy of the process, since a second one's collectives would clash with its own."""
    return make_strategy("mirrored")
