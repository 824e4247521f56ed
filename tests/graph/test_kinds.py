"""The table's statements about channels, compared with what operations do to them."""

import inspect

import keras
import numpy as np
import pytest

from tas_tf.graph.kinds import ACTIVATIONS, Kind, activation_kind, activation_name

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
FUNCTIONS = {
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


def operation(name: str) -> type | None:
    """The class of a functional operation."""
    modules = (keras.src.ops.nn, keras.src.ops.numpy)
    return next((vars(module)[name] for module in modules if name in vars(module)), None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_activation_of_keras(name):
    assert activation_kind(name) is observed(FUNCTIONS[name])


def test_an_activation_of_ones_own_is_opaque():
    assert activation_kind("my_activation") is Kind.OPAQUE
    assert activation_kind(activation_name({"class_name": "ELU", "registered_name": "my>ELU"})) is Kind.OPAQUE


@pytest.mark.parametrize("layer", [keras.layers.ReLU(6, 0.1, 1), keras.layers.LeakyReLU(0.2), keras.layers.ELU()])
def test_layers_as_activations(layer):
    config = keras.layers.Conv2D(4, 3, activation=layer).get_config()
    assert activation_kind(activation_name(config["activation"])) is Kind.SHIFTS_ZEROS
    assert observed(layer) is not Kind.OPAQUE


def test_spellings_of_one_activation_compute_the_same():
    checked = 0
    for known in ACTIVATIONS:
        outputs = [np.asarray(keras.activations.get(name)(IMAGES)) for name in known.names]
        if known.op is not None:
            outputs.append(np.asarray(operation(known.op)()(IMAGES)))
        if known.layer is not None:
            layer = getattr(keras.layers, known.layer)
            # Its default slope differs from the function's.
            layer = layer(negative_slope=0.2) if known.layer == "LeakyReLU" else layer()
            outputs.append(np.asarray(layer(IMAGES)))
        for other in outputs[1:]:
            np.testing.assert_allclose(other, outputs[0], atol=1e-3, err_msg=str(known))  # GELU may be approximate
            checked += 1
    assert checked > 25
