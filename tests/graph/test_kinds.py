"""What the table says of channels, against what operations do to them."""

import inspect

import keras
import numpy as np
import pytest

from tas_tf.graph.kinds import _OPS, Kind, activation_kind

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
ACTIVATIONS = {
    name: function
    for name, function in vars(keras.activations).items()
    if inspect.isfunction(function) and name not in ("get", "serialize", "deserialize", "threshold")
}


def observed(function) -> Kind:
    """Whether a change of one channel stays in it, and whether zeros stay zeros."""
    outputs, changed = np.asarray(function(IMAGES)), IMAGES.copy()
    changed[..., 0] += 1
    if outputs.shape != IMAGES.shape or not np.allclose(np.asarray(function(changed))[..., 1:], outputs[..., 1:]):
        return Kind.OPAQUE
    zeros = np.asarray(function(np.zeros_like(IMAGES)))
    return Kind.KEEPS_ZEROS if np.abs(zeros).max() < 1e-6 else Kind.SHIFTS_ZEROS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_keras(name):
    assert activation_kind(name) is observed(ACTIVATIONS[name])


def test_an_activation_of_ones_own_is_opaque():
    assert activation_kind("my_activation") is Kind.OPAQUE


def test_operations_do_what_the_table_says():
    """Those of the table that can be made without arguments."""
    modules = (keras.src.ops.nn, keras.src.ops.numpy)
    checked = 0
    for name, kind in _OPS.items():
        operation = next((vars(module)[name] for module in modules if name in vars(module)), None)
        if operation is None or kind not in (Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS) or name == "Clip":
            continue
        assert observed(operation()) is kind, name
        checked += 1
    assert checked > 25
