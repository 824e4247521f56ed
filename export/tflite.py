"""Writing a classifier as a `.tflite` file in one of several formats, and running one with LiteRT."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from export.errors import ExportError
from export.saved_model import export_saved_model
from tas_tf.errors import UserError
from tas_tf.files import write_bytes


def convert_fp32(saved_model: Path) -> bytes:
    """Converts a SavedModel to a flatbuffer of float32 weights; built-in operations only."""
    return tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert()


# Format name -> SavedModel folder to flatbuffer. A further format is one more entry.
CONVERTERS: MappingProxyType[str, Callable[[Path], bytes]] = MappingProxyType({"fp32": convert_fp32})


def export_tflite(source: keras.Model | str | Path, path: str | Path, *, format: str = "fp32") -> Path:
    """Writes a `.tflite` file with a free batch size; batch normalisation is folded into convolutions.

    Args:
        source: A SavedModel folder, or the model itself, see `export_saved_model`.
        path: File to write; replaced only once the new one is complete.
        format: A key of `CONVERTERS`.

    Returns:
        The file.

    Raises:
        UserError: If the format is unknown or `source` is neither.
        ExportError: If LiteRT has no operation for something in the model.
    """
    if format not in CONVERTERS:
        raise UserError(f"`format` must be one of {', '.join(CONVERTERS)}. Received: {format!r}.")
    if isinstance(source, keras.Model):
        with tempfile.TemporaryDirectory() as scratch:
            folder = export_saved_model(source, Path(scratch) / "saved_model")
            return export_tflite(folder, path, format=format)
    if not (Path(source) / "saved_model.pb").is_file():
        raise UserError(f"`source` must be a Keras model or a SavedModel folder. Received: {str(source)!r}.")
    try:
        flatbuffer = CONVERTERS[format](Path(source))
    except Exception as error:  # TensorFlow's ConverterError is private and derives from Exception alone
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"The model can't be converted to TFLite ({format}): {reason}") from error
    return write_bytes(path, flatbuffer)


def file_size(model: keras.Model, *, preprocessing_layers: Sequence[keras.layers.Layer] = ()) -> int:
    """Bytes of the float32 `.tflite` file that a classifier becomes; arguments as for `export_saved_model`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = export_saved_model(model, Path(scratch) / "saved_model", preprocessing_layers=preprocessing_layers)
        return export_tflite(folder, Path(scratch) / "fp32.tflite").stat().st_size


class TFLiteModel:
    """A `.tflite` classifier, run by LiteRT's interpreter on NumPy arrays.

    Args:
        path: The file.
        num_threads: Threads of the interpreter.

    Raises:
        UserError: If the file is missing or isn't a TFLite model.
    """

    def __init__(self, path: str | Path, *, num_threads: int = 1):
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        except ValueError as error:
            raise UserError(f"`path` must be a TFLite model. Received: {str(path)!r} ({error}).") from error
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._shape: tuple[int, ...] | None = None

    def predict(self, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
        """Runs images `[n, height, width, channels]` in batches; returns outputs `[n, classes]`."""
        return np.concatenate(
            [self._run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        )

    def bind(self, images: np.ndarray) -> Callable[[], None]:
        """Returns a call that runs `images` once, for timing: copies in, computes, copies out."""
        self._run(images)

        def run() -> None:
            self._run(images)

        return run

    def _run(self, images: np.ndarray) -> np.ndarray:
        if images.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input["index"], images.shape)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self._input["index"], images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])
