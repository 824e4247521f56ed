"""Checks that calibration images are like those that a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tas_tf.deploy.arrays import Arrays
from tas_tf.deploy.converters import not_calibration
from tas_tf.deploy.metadata import Metadata
from tas_tf.errors import UserError

# Images scaled in another way are off by a factor of a hundred; few or unusual images by less than this.
_FAR = 8


def check_axes(calibration: Arrays, inputs: Mapping[str, Any]) -> None:
    """Checks that calibration images have the shapes of a model's inputs.

    Args:
        calibration: The images, by name if there are several inputs.
        inputs: Specifications or tensors of the inputs, by name.

    Raises:
        UserError: They haven't.
    """
    if len(inputs) > 1 and (not isinstance(calibration, Mapping) or set(calibration) != set(inputs)):
        received = ", ".join(calibration) if isinstance(calibration, Mapping) else type(calibration).__name__
        raise UserError(f"`calibration` must be a dictionary of arrays for {', '.join(inputs)}. Received: {received}.")
    given = calibration if isinstance(calibration, Mapping) else dict.fromkeys(inputs, calibration)
    for (name, spec), array in zip(inputs.items(), given.values(), strict=True):
        array = given.get(name, array)
        if not isinstance(array, np.ndarray) or array.ndim != len(spec.shape):
            raise not_calibration(array)
        expected = tuple(spec.shape)[1:]
        if any(side not in (None, size) for side, size in zip(expected, array.shape[1:], strict=True)):
            sides = "x".join("any" if side is None else str(side) for side in expected)
            named = f" for `{name}`" if len(inputs) > 1 else ""
            raise UserError(
                f"`calibration` must have images of {sides}{named}, as the model takes them. "
                f"Received: shape {array.shape}."
            )


def check_range(calibration: Arrays, metadata: Metadata | None) -> None:
    """Checks that the values of calibration images are about as large as those of the training images, if known.

    Raises:
        UserError: They are far larger or smaller.
    """
    if metadata is None or metadata.input_range is None or isinstance(calibration, Mapping):
        return
    low, high = metadata.input_range
    lowest, highest = float(calibration.min()), float(calibration.max())
    known, found = (max(abs(one), abs(other)) for one, other in ((low, high), (lowest, highest)))
    if known and not known / _FAR <= found <= known * _FAR:
        raise UserError(
            f"`calibration` must be scaled like the training images: values from about {low:.4g} to {high:.4g}. "
            f"Received: {lowest:.4g} to {highest:.4g}."
        )
