"""Converts SavedModel folders to TFLite flatbuffers, in one of several formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.deploy.arrays import Arrays, check_lengths, count
from tas_tf.errors import UserError


def convert_fp32(saved_model: Path, calibration: Arrays | None = None) -> bytes:
    """Converts a SavedModel to a flatbuffer with float32 weights and built-in operations only."""
    return _converter(saved_model).convert()


def convert_fp16(saved_model: Path, calibration: Arrays | None = None) -> bytes:
    """Stores weights in float16, half the size; runtimes without float16 compute in float32."""
    converter = _converter(saved_model, optimise=True)
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def convert_dynamic(saved_model: Path, calibration: Arrays | None = None) -> bytes:
    """Stores weights in int8; activations are rounded at run time by their actual range."""
    return _converter(saved_model, optimise=True).convert()


def convert_int8(saved_model: Path, calibration: Arrays) -> bytes:
    """Computes in int8 throughout, with int8 output and ranges taken from calibration images.

    A network trained with fake quantisation keeps its own ranges; only layers around it, such as preprocessing, are
    calibrated. The file takes uint8 input if the calibration images are an array of uint8 pixels, otherwise int8.
    """
    converter = _converter(saved_model, optimise=True)
    pixels = isinstance(calibration, np.ndarray) and calibration.dtype == np.uint8
    converter.inference_input_type = tf.uint8 if pixels else tf.int8
    converter.inference_output_type = tf.int8
    converter.representative_dataset = lambda: _one_by_one(calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings():
        # For inputs by name, the converter uses an interpreter of its own that warns of its age.
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated", UserWarning)
        return converter.convert()


# Format name -> function from SavedModel folder and calibration images to flatbuffer. A new format is one more entry.
CONVERTERS: MappingProxyType[str, Callable[[Path, Any], bytes]] = MappingProxyType(
    {
        "fp32": convert_fp32,
        "fp16": convert_fp16,
        "dynamic": convert_dynamic,
        "int8": convert_int8,
        "qat_int8": convert_int8,
    }
)


def as_float32(images: Arrays | None) -> Arrays | None:
    """Rounds float64 and float16 to float32, which networks take; anything else stays.

    >>> as_float32(np.zeros(2)).dtype, as_float32(np.zeros(2, np.uint8)).dtype
    (dtype('float32'), dtype('uint8'))
    """
    if isinstance(images, Mapping):
        return {name: as_float32(one) for name, one in images.items()}
    return images.astype(np.float32) if isinstance(images, np.ndarray) and images.dtype.kind == "f" else images


def check_calibration(images: Arrays | None) -> None:
    """Checks that images can be used for calibration.

    Raises:
        UserError: If they can't.
    """
    if isinstance(images, Mapping):
        check_lengths("calibration", images)
        for one in images.values():
            check_calibration(one.astype(np.float32) if one.dtype.kind in "iub" else one)
        return
    if not isinstance(images, np.ndarray) or images.ndim < 2 or not len(images):
        raise not_calibration(images)
    known = images.dtype.name in ("uint8", "float32") or (images.dtype.kind in "iub" and images.ndim < 4)
    if not known or not np.isfinite(images).all():
        raise UserError(
            "`calibration` must be finite float32, uint8 for pixels, or whole numbers for other inputs. Received: "
            f"{images.dtype.name}{'' if np.isfinite(images).all() else ' with NaN or infinity'}."
        )


def not_calibration(received: Any) -> UserError:
    """The error for what can't be calibration images."""
    is_array = isinstance(received, np.ndarray)
    found = f"shape {received.shape}" if is_array else "none" if received is None else type(received).__name__
    return UserError(
        "`calibration` must hold at least one training image, [n, height, width, channels]: integer formats take their "
        f"ranges from such images. Received: {found}."
    )


def _converter(saved_model: Path, *, optimise: bool = False) -> tf.lite.TFLiteConverter:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if optimise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def _one_by_one(images: Arrays) -> Iterator[list[np.ndarray] | dict[str, np.ndarray]]:
    if isinstance(images, Mapping):
        for row in range(count(images)):
            yield {name: array[row : row + 1] for name, array in images.items()}
        return
    are_pixels = images.dtype == np.uint8 and images.ndim == 4
    for number, image in enumerate(images):
        if number == 0 and are_pixels:
            # With the whole range present, the file's input are the pixels themselves: scale 1, zero point 0.
            image = image.copy()
            image[0, 0], image[-1, -1] = 0, 255
        yield [image[np.newaxis].astype(np.float32 if are_pixels else images.dtype)]
