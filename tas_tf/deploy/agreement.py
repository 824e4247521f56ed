"""Whether a file computes what its Keras model computes, on a few images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tas_tf.deploy.arrays import Arrays, count, each, listed, together
from tas_tf.deploy.errors import ExportError
from tas_tf.graph.layers import every_layer

# Largest difference allowed from the Keras model's outputs, as a share of their largest magnitude. Formats that round
# to 8 bits are judged by accuracy or, without labels, by `_UNRELATED`.
TOLERANCES = {"saved_model": 1e-3, "fp32": 1e-3, "fp16": 2e-2}
#: A file is useless if it deviates from the Keras model by more than this share of the spread of the model's outputs. A
#: constant deviates by 1, unrelated outputs by 1.4.
_UNRELATED = 0.7
#: One step of 8 bits, as a share of the largest output. Nearly constant outputs may differ by one step.
_STEP = 1 / 256
_FEW = 8
#: Layers that look up entries by number.
_LOOKUPS = (keras.layers.Embedding, keras.layers.CategoryEncoding)


def probe_images(shape: Sequence[int | None], dtype: str) -> np.ndarray:
    """Returns a few random images: the first half normalised, the second half pixels.

    Args:
        shape: Input shape of a model, `[batch, height, width, channels]`; free sides become 32.
        dtype: Input type of the model; with an integer type, all images are pixels.
    """
    rng, size = np.random.default_rng(0), (_FEW // 2, *(side or 32 for side in shape[1:]))
    if np.issubdtype(dtype, np.integer) and len(size) < 3:  # categories: larger numbers may be unknown
        return rng.integers(0, 2, (_FEW, *size[1:])).astype(dtype)
    pixels = rng.integers(0, 256, size)
    normalised = rng.integers(0, 256, size) if np.issubdtype(dtype, np.integer) else rng.standard_normal(size)
    return np.concatenate([normalised, pixels]).astype(dtype)


def probes_for(model: keras.Model) -> Arrays:
    """Returns a few random inputs of a model made by `serving_model`."""
    inputs = model.input if isinstance(model.input, Mapping) else {"images": model.input}
    probes = probes_of(inputs)
    if not any(isinstance(layer, _LOOKUPS) for layer in every_layer(model)):
        return probes
    # Numbers of entries that exist: other ones are errors.
    return each(lambda array: (array > 0).astype(array.dtype) if array.ndim < 4 else array, probes)


def probes_of(inputs: Mapping[str, Any]) -> Arrays:
    """Returns a few random inputs, given their specifications by name."""
    probes = {name: probe_images(spec.shape, getattr(spec.dtype, "name", spec.dtype)) for name, spec in inputs.items()}
    return probes if len(probes) > 1 else next(iter(probes.values()))


def some_of(images: Arrays) -> Arrays:
    """Returns a few of the given images, evenly spaced."""
    rows = np.linspace(0, count(images) - 1, min(_FEW, count(images))).round().astype(int)
    return each(lambda array: array[rows], images)


def check_agreement(
    predict: Callable[[Arrays], Arrays],
    expect: Callable[[Arrays], Arrays],
    images: Arrays,
    *,
    format: str,
    name: str,
) -> None:
    """Compares outputs one image at a time, the way a file is used.

    Args:
        predict: Runs the file on images `[1, height, width, channels]`.
        expect: Runs the Keras model on such images.
        images: A few images.
        format: Name of the format. Formats in `TOLERANCES` are compared number by number. The others round to 8 bits
            and only must not be unrelated to the Keras model.
        name: Name of the file in error messages.

    Raises:
        ExportError: If the outputs have another shape or differ by too much.
    """
    singles = [each(lambda array, row=row: array[row : row + 1], images) for row in range(count(images))]
    found, wanted = (
        listed(together([run(one) for one in singles])) for run in (predict, lambda one: each(np.asarray, expect(one)))
    )
    if len(found) != len(wanted):
        raise ExportError(f"{name} has {len(found)} outputs, its Keras model {len(wanted)}.")
    for outputs, expected in zip(found, wanted, strict=True):
        _check_output(outputs.astype(np.float64), expected.astype(np.float64), format=format, name=name)


def _check_output(outputs: np.ndarray, expected: np.ndarray, *, format: str, name: str) -> None:
    """Compares one output; see `check_agreement`."""
    # Random images may overflow a network; the images with finite outputs are enough to compare.
    finite = np.isfinite(expected).reshape(len(expected), -1).all(axis=1)
    if not finite.any():
        raise ExportError("The Keras model returns NaN or infinity. Did its training diverge?")
    if outputs.shape != expected.shape:
        raise ExportError(f"{name} returns outputs of shape {outputs.shape}, its Keras model {expected.shape}.")
    outputs, expected = outputs[finite], expected[finite]
    largest = np.max(np.abs(expected))
    if format in TOLERANCES:
        found, allowed, what = np.max(np.abs(outputs - expected)), TOLERANCES[format] * largest, "max_abs_diff"
    else:
        found, what = np.sqrt(np.mean((outputs - expected) ** 2)), "root of the mean squared difference"
        allowed = _UNRELATED * expected.std() + _STEP * largest
    if not found <= allowed:  # NaN compares false
        raise ExportError(
            f"{name} differs from its Keras model: {what} {found:.3g} on {finite.sum()} images; at most {allowed:.3g} "
            f"is allowed, and the largest output is {largest:.3g}. Nothing was written."
        )
