"""Writes a network as a `.tflite` file in one of several formats, and checks the file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tas_tf.deploy.agreement import check_agreement, probes_of, some_of
from tas_tf.deploy.arrays import Arrays, listed
from tas_tf.deploy.calibration import check_axes, check_range
from tas_tf.deploy.converters import CONVERTERS, as_float32, check_calibration
from tas_tf.deploy.errors import ExportError, raise_if_full
from tas_tf.deploy.lite_model import TFLiteModel
from tas_tf.deploy.metadata import Metadata, append_files
from tas_tf.deploy.saved_model import LoadedSavedModel, serving_model, write_frozen
from tas_tf.deploy.settings import INTEGER_FORMATS
from tas_tf.errors import UserError
from tas_tf.files import write_bytes
from tas_tf.graph.image_size import takes_any_size, with_image_size

# How the converter's messages name TensorFlow operations that LiteRT lacks, and where in a graph an error is.
_MISSING = re.compile(
    r"'tf\.(\w+)' op is neither a custom op nor a flex op|^(?:Custom|TF Select) ops: (.+)$", re.MULTILINE
)
_PLACES = re.compile(r"<unknown>:\d+: error: (?:loc\(.*\): )?")


def export_tflite(
    source: keras.Model | str | Path,
    path: str | Path,
    *,
    format: str = "fp32",
    calibration: Arrays | None = None,
    metadata: Metadata | None = None,
) -> Path:
    """Writes a `.tflite` file with a free batch size; batch normalisation is folded into convolutions.

    The file is first run on a few images: an existing file at `path` is replaced only if the new one computes what its
    source computes. A file that rounds to 8 bits may deviate, but its outputs must be related to the source's. How
    accurate it is can only be measured with labels.

    Args:
        source: A SavedModel folder or the model itself, see `export_saved_model`; for `qat_int8`, one with fake
            quantisation, see `tas_tf.qat`. A folder is a program that runs, so you must trust it.
        path: File to write.
        format: A key of `CONVERTERS`.
        calibration: For `INTEGER_FORMATS`, about a hundred or more training images in the source's input format,
            float32 `[n, height, width, channels]`. For a source that contains its preprocessing and takes float32, pass
            uint8 pixels; the file then takes uint8. Other formats use some of the images, if given, for the check.
        metadata: Metadata to put into the file. If it is that of a result of `compress`, the values of the calibration
            images are compared with those of the training images.

    Returns:
        The path of the file.

    Raises:
        UserError: If the format is unknown, `source` is neither model nor folder, or calibration images are missing or
            unusable.
        ExportError: If LiteRT lacks an operation of the model, or the file computes something else.
        OSError: If the disk is full.

    Example:
        ```python
        tas_tf.export_tflite(result.student, "student_fp32.tflite", metadata=result.metadata)
        ```
    """
    calibration = as_float32(calibration)
    _check_format(format, calibration)
    with tempfile.TemporaryDirectory() as scratch:
        expect: Callable[[Arrays], Any]
        if isinstance(source, keras.Model):
            if takes_any_size(source):
                source = with_image_size(source, _size_of_images(calibration, metadata))
            served = serving_model(source)
            folder, expect = write_frozen(served, Path(scratch) / "frozen"), partial(served, training=False)
            inputs = served.input if isinstance(served.input, Mapping) else {"images": served.input}
        else:
            folder = _check_folder(source)
            loaded = LoadedSavedModel(folder)
            expect, inputs = loaded.predict, loaded.inputs
        dtypes = {name: np.dtype(getattr(spec.dtype, "name", spec.dtype)) for name, spec in inputs.items()}
        if isinstance(calibration, Mapping) and len(inputs) == len(calibration) == 1:
            (calibration,) = calibration.values()
        if calibration is not None:
            check_axes(calibration, inputs)
            check_range(calibration, metadata)
        if isinstance(calibration, Mapping):
            calibration = _typed(calibration, dtypes)
        probes = probes_of(inputs) if calibration is None else some_of(calibration)
        if format not in INTEGER_FORMATS:
            probes = _typed(probes, dtypes)

        def check(file: Path) -> None:
            check_agreement(
                TFLiteModel(file).predict,
                lambda images: expect(_typed(images, dtypes)),
                probes,
                format=format,
                name=f"The {format} file",
            )

        return write_tflite(folder, path, format=format, calibration=calibration, metadata=metadata, check=check)


def _typed(images: Arrays, dtypes: Mapping[str, np.dtype]) -> Arrays:
    """Inputs in the types that a model takes."""
    if isinstance(images, Mapping):
        return {name: array.astype(dtypes[name]) for name, array in images.items()}
    (dtype,) = dtypes.values()
    return images.astype(dtype)


def _size_of_images(calibration: Arrays | None, metadata: Metadata | None) -> Sequence[int]:
    """Height, width and channels of the images of a file, for a model that takes any size.

    Raises:
        UserError: Neither tells.
    """
    if metadata is not None:
        return metadata.input_shape
    if calibration is None:
        raise UserError(
            "`metadata` tells the size of the images, which the model leaves open but a file needs. Expected it, such "
            "as the result's `metadata`, or `calibration` images. Received: neither."
        )
    return listed(calibration)[0].shape[1:]


def write_tflite(
    saved_model: str | Path,
    path: str | Path,
    *,
    format: str = "fp32",
    calibration: Arrays | None = None,
    metadata: Metadata | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Writes a SavedModel folder as `export_tflite` does, but runs only the given check.

    Args:
        saved_model: The folder.
        path: File to write.
        format: A key of `CONVERTERS`.
        calibration: See `export_tflite`.
        metadata: Metadata to put into the file.
        check: Called with the file before it is put in place; raises to keep the existing one.
    """
    _check_format(format, calibration)
    folder = _check_folder(saved_model)
    try:
        flatbuffer = CONVERTERS[format](folder, calibration)
    except Exception as error:  # TensorFlow's ConverterError is private and a direct subclass of Exception
        raise_if_full(error, Path(path))
        raise ExportError(f"The model can't be converted to TFLite ({format}): {_reason(str(error))}") from error
    if metadata is not None:
        flatbuffer = append_files(flatbuffer, metadata.files(format))
    if check is not None:
        with tempfile.TemporaryDirectory() as scratch:
            check(write_bytes(Path(scratch) / "model.tflite", flatbuffer))
    return write_bytes(path, flatbuffer)


def _reason(words: str) -> str:
    """Says in plain words why a conversion failed, if the converter's message shows it."""
    found = [name for pair in _MISSING.findall(words) for name in re.findall(r"\w+", "".join(pair))]
    if found:
        return f"TFLite has no operation for {', '.join(dict.fromkeys(found))}."
    return _PLACES.sub(" ", words.strip().split("\n")[0]).strip()


def _check_format(format: str, calibration: Arrays | None) -> None:
    """Rejects unknown formats, and integer formats without calibration images."""
    if format not in CONVERTERS:
        raise UserError(f"`format` must be one of {', '.join(CONVERTERS)}. Received: {format!r}.")
    if format in INTEGER_FORMATS:
        check_calibration(calibration)


def _check_folder(source: str | Path) -> Path:
    """Rejects paths that aren't a SavedModel folder."""
    if not (Path(source) / "saved_model.pb").is_file():
        raise UserError(f"`source` must be a Keras model or a SavedModel folder. Received: {str(source)!r}.")
    return Path(source)


def file_size(
    model: keras.Model,
    *,
    preprocessing_layers: Sequence[keras.layers.Layer] = (),
    metadata: Metadata | None = None,
) -> int:
    """Returns the bytes of a classifier's float32 `.tflite` file; for the arguments, see the two exports."""
    with tempfile.TemporaryDirectory() as scratch:
        served = serving_model(model, preprocessing_layers=preprocessing_layers)
        folder = write_frozen(served, Path(scratch) / "frozen")
        return write_tflite(folder, Path(scratch) / "fp32.tflite", metadata=metadata).stat().st_size
