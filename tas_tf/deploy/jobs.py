"""One model to export: the graphs that its files are converted from, and the outputs that they must match."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tas_tf.deploy.arrays import Arrays, each, in_batches, listed
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.saved_model import serving_model
from tas_tf.deploy.scored_on import ScoredOn
from tas_tf.errors import UserError

_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Extras:
    """Inputs that some formats need besides the models.

    Attributes:
        calibration: Training images in the artefacts' input format, for `int8` and `qat_int8`; several inputs by name.
        quantised: The same networks trained with fake quantisation, by name, for `qat_int8`; see `tas_tf.qat`.
        metadata: Metadata to put into the files, by name of the model.
    """

    calibration: Arrays | None = None
    quantised: Mapping[str, keras.Model] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Metadata] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to export.

    Attributes:
        name: Name of the model.
        model: The graph that is deployed.
        from_floats: The same graph with float32 input, even for pixels: integer formats set their own input type.
        quantised: The graph of the fake-quantised network, if there is one.
        expected: The model's outputs on the test images.
        expected_quantised: The fake-quantised network's outputs on the test images.
    """

    name: str
    model: keras.Model
    from_floats: keras.Model
    quantised: keras.Model | None
    expected: Arrays
    expected_quantised: Arrays | None

    def references(self, format: str) -> list[tuple[Arrays, str]]:
        """Returns the outputs that a file's accuracy is compared with, each with a description of their source."""
        found = [(self.expected, "its Keras model")]
        if format == "qat_int8" and self.expected_quantised is not None:
            found.append((self.expected_quantised, "the network trained for 8 bits"))
        return found

    def source(self, format: str) -> keras.Model:
        """Returns the graph that a format is converted from."""
        return {"int8": self.from_floats, "qat_int8": self.quantised}.get(format, self.model)


def make_job(
    name: str,
    model: keras.Model,
    preprocessing_layers: Sequence[keras.layers.Layer],
    test: ScoredOn,
    extras: Extras,
) -> Job:
    """Wraps a model for deployment and runs it on the test images.

    Raises:
        UserError: If the test images don't fit the model, or it returns NaN or infinity.
    """

    def served(network: keras.Model, dtype: str) -> keras.Model:
        return serving_model(network, preprocessing_layers=preprocessing_layers, input_dtype=dtype)

    deployed = served(model, _raw_dtype(test.images) if preprocessing_layers else model.inputs[0].dtype)
    _check_images(name, deployed, test.images)
    quantised = served(extras.quantised[name], "float32") if name in extras.quantised else None
    as_floats = each(lambda array: array.astype(np.float32), test.images)
    return Job(
        name=name,
        model=deployed,
        from_floats=deployed if all(one.dtype == "float32" for one in deployed.inputs) else served(model, "float32"),
        quantised=quantised,
        expected=_compute_expected(name, deployed, test.images),
        expected_quantised=None if quantised is None else _compute_expected(name, quantised, as_floats),
    )


def _compute_expected(name: str, model: keras.Model, images: Arrays) -> Arrays:
    """Returns the Keras model's outputs, `[n, ...]`; they must be finite."""
    # Not `predict`: TensorFlow warns because it compiles a function for each model.
    outputs = in_batches(lambda batch: each(np.asarray, model(batch, training=False)), images, _BATCH)
    if not all(np.isfinite(one).all() for one in listed(outputs)):
        raise UserError(f"`models`: the {name} returns NaN or infinity on the test images. Did its training diverge?")
    return outputs


def _raw_dtype(images: np.ndarray) -> str:
    """Returns the type of raw images, which becomes the artefacts' input type."""
    if images.dtype.name not in ("uint8", "float32"):
        raise UserError(
            f"`images` must be uint8 or float32 if the files contain preprocessing. Received: {images.dtype.name}."
        )
    return images.dtype.name


def _check_images(name: str, model: keras.Model, images: Arrays) -> None:
    """Rejects images that don't fit the model."""
    for tensor in model.inputs:
        wanted = tuple(tensor.shape[1:])
        found = images[tensor.name] if isinstance(images, Mapping) else images
        given = found.shape[1:]
        if len(given) != len(wanted) or any(size not in (None, got) for size, got in zip(wanted, given, strict=True)):
            raise UserError(f"`images` must have the shape {wanted} each for the {name}. Received: {given}.")
        if found.dtype.name != tensor.dtype:
            raise UserError(f"`images` must be {tensor.dtype} for the {name}. Received: {found.dtype.name}.")
