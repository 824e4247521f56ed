"""The estimate of a step's memory: its formula on small networks, and warnings where memory is short."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.training import memory
from tas_tf.training.memory import StepMemory, estimate_step, machine_memory, shortage, warn_of_shortage


def network() -> keras.Model:
    """Four convolutions on 32x32 pixels, and many weights at the end."""
    x = images = keras.Input((32, 32, 8))
    for _ in range(4):
        x = layers.Conv2D(8, 3, padding="same")(x)
    return keras.Model(images, layers.Dense(500)(layers.GlobalAveragePooling2D()(x)))


#: Bytes: an activation of an image, the kernel and bias of a convolution, those of the dense layer.
ACTIVATION, CONV, DENSE = 4 * 32 * 32 * 8, 4 * (3 * 3 * 8 * 8 + 8), 4 * (8 * 500 + 500)


def test_the_formula():
    found = estimate_step(network(), 10)
    # The gradient of the fourth convolution: three activations are kept besides the images, and four are in work.
    assert found.activations == 10 * ACTIVATION * (3 + 4)
    assert found.gradients == DENSE + CONV
    assert found.weights == found.slots == DENSE + 4 * CONV
    assert found.teacher == 0
    assert found.total == pytest.approx(sum(vars(found).values()))


def test_what_changes_it():
    model = network()
    plain = estimate_step(model, 12)
    half = estimate_step(model, 12, accumulate=2)
    assert half.activations == plain.activations / 2
    assert half.gradients == plain.gradients + plain.weights
    assert half.program == 1.5 * plain.program
    assert estimate_step(model, 12, replicas=2).activations == plain.activations / 2
    assert estimate_step(model, 12, momentum=False).slots == 0
    assert estimate_step(model, 12, passes=2).program == 2 * plain.program
    # The teacher runs in the same step, but keeps nothing.
    assert estimate_step(model, 12, teacher=model).teacher == plain.weights + 12 * 2 * ACTIVATION
    assert estimate_step(model, 12, recompute=True).activations < plain.activations


def test_the_update_needs_most_if_weights_outweigh_activations():
    images = keras.Input((2,))
    model = keras.Model(images, layers.Dense(1000)(images))
    found = estimate_step(model, 1)
    assert (found.activations, found.gradients) == (0, 2 * 4 * 3000)


def test_a_machine_has_memory():
    found, whose = machine_memory()
    assert whose == "this machine"
    assert 1e8 < found < 1e14


def test_a_container_may_have_less(monkeypatch, tmp_path):
    (limit := tmp_path / "memory.max").write_text("123456789\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMIT", limit)
    assert machine_memory()[0] == 123456789
    limit.write_text("max\n")
    assert machine_memory()[0] > 123456789


def test_a_gpu_has_its_own(monkeypatch):
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device])
    monkeypatch.setattr(memory.device_lib, "list_local_devices", lambda: [_Device("CPU", 1), _Device("GPU", 7)])
    assert machine_memory() == (7.0, "each GPU")
    assert shortage(StepMemory(weights=6.0), replicas=2) is None


class _Device:
    def __init__(self, kind: str, limit: int) -> None:
        self.device_type, self.memory_limit = kind, limit


def test_too_little_memory_is_told_before_a_training(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: (20e6, "this machine"))
    assert shortage(StepMemory(weights=11e6)) is None
    with pytest.warns(UserWarning, match=r"needs about 22 MB of memory, but this machine has 20\. A smaller `batch_s"):
        memory.warnings.warn(shortage(StepMemory(weights=11e6), replicas=2), stacklevel=1)
    with pytest.warns(UserWarning, match="`accumulate` and `recompute` need less for the same batch"):
        warn_of_shortage(network(), 1000)


def test_enough_memory_is_seen_without_an_estimate(monkeypatch):
    monkeypatch.setattr(memory, "estimate_step", None)
    warn_of_shortage(network(), 10)
