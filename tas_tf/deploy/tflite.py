"""Writes a classifier as a `.tflite` file in one of several formats, and runs such files with LiteRT."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tas_tf.deploy.agreement import check_agreement, probes_of, some_of
from tas_tf.deploy.arrays import Arrays, count, each, in_batches
from tas_tf.deploy.errors import ExportError, raise_if_full
from tas_tf.deploy.metadata import Metadata, append_files
from tas_tf.deploy.saved_model import LoadedSavedModel, serving_model, write_frozen
from tas_tf.errors import UserError
from tas_tf.files import write_bytes
from tas_tf.graph.image_size import takes_any_size, with_image_size


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
    calibrated. The file takes uint8 input if the calibration images are uint8 pixels, otherwise int8.
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
CONVERTERS: MappingProxyType[str, Callable[[Path, np.ndarray | None], bytes]] = MappingProxyType(
    {
        "fp32": convert_fp32,
        "fp16": convert_fp16,
        "dynamic": convert_dynamic,
        "int8": convert_int8,
        "qat_int8": convert_int8,
    }
)
#: Formats that compute in integers throughout and need calibration images.
INTEGER_FORMATS = ("int8", "qat_int8")
# How the converter's messages name TensorFlow operations that LiteRT lacks, and where in a graph an error is.
_MISSING = re.compile(
    r"'tf\.(\w+)' op is neither a custom op nor a flex op|^(?:Custom|TF Select) ops: (.+)$", re.MULTILINE
)
# Axes of images in messages, by the number of axes of one.
_AXES = {3: "[n, height, width, channels]", 2: "[n, steps, channels]"}
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
            quantisation, see `tas_tf.qat`.
        path: File to write.
        format: A key of `CONVERTERS`.
        calibration: For `INTEGER_FORMATS`, about a hundred or more training images in the source's input format,
            float32 `[n, height, width, channels]`. For a source that contains its preprocessing and takes float32, pass
            uint8 pixels; the file then takes uint8. Other formats use some of the images, if given, for the check.
        metadata: Metadata to put into the file.

    Returns:
        The path of the file.

    Raises:
        UserError: If the format is unknown, `source` is neither model nor folder, or calibration images are missing or
            unusable.
        ExportError: If LiteRT lacks an operation of the model, or the file computes something else.
        OSError: If the disk is full.

    Example:
        ```python
        tas_tf.export_tflite(result.student, "student.tflite", metadata=result.metadata)
        ```
    """
    _check_format(format, calibration)
    with tempfile.TemporaryDirectory() as scratch:
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
    return calibration.shape[1:]


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


def check_calibration(images: Arrays | None) -> None:
    """Checks that images can be used for calibration.

    Raises:
        UserError: If they can't.
    """
    if isinstance(images, Mapping):
        for one in images.values():
            check_calibration(one.astype(np.float32) if one.dtype.kind in "iub" else one)
        return
    if not isinstance(images, np.ndarray) or images.ndim < 2 or not len(images):
        is_array = isinstance(images, np.ndarray)
        received = f"shape {images.shape}" if is_array else "none" if images is None else type(images).__name__
        raise UserError(
            "`calibration` must hold at least one training image, [n, height, width, channels]: integer "
            f"formats take their ranges from such images. Received: {received}."
        )
    if images.dtype.name not in ("uint8", "float32") or not np.isfinite(images).all():
        raise UserError(
            f"`calibration` must be finite float32, or uint8 for pixels. Received: {images.dtype.name}"
            f"{'' if np.isfinite(images).all() else ' with NaN or infinity'}."
        )


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


class TFLiteModel:
    """A `.tflite` classifier, run by LiteRT's interpreter on NumPy arrays.

    If the file's input or output is quantised, arrays are converted.

    Args:
        path: Path of the file.
        num_threads: Threads of the interpreter.

    Raises:
        UserError: If the file is missing or isn't a TFLite model.

    Example:
        ```python
        outputs = tas_tf.TFLiteModel("student.tflite").predict(images)
        ```
    """

    def __init__(self, path: str | Path, *, num_threads: int = 1):
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        except ValueError as error:
            raise UserError(f"`path` must be a TFLite model. Received: {str(path)!r} ({error}).") from error
        self._path = str(path)
        self._inputs, self._outputs = self._tensors()
        self._shapes: list[tuple[int, ...]] | None = None

    def predict(self, images: Arrays, *, batch_size: int = 128) -> Arrays:
        """Runs images in batches.

        Args:
            images: Images as the network takes them, `[n, height, width, channels]`; if it has several inputs, a
                dictionary of arrays by name.
            batch_size: Images in a batch.

        Returns:
            Outputs, float32 `[n, classes]`; if there are several, a dictionary by name.

        Raises:
            UserError: The images have another shape or type.
        """
        if len(self._inputs) > 1 and (not isinstance(images, Mapping) or set(images) != set(self._inputs)):
            received = ", ".join(images) if isinstance(images, Mapping) else type(images).__name__
            raise UserError(f"`images` must be a dictionary of {', '.join(self._inputs)}. Received: {received}.")
        images = each(np.asarray, images)
        for detail, array in zip(self._inputs.values(), self._in_order(images), strict=True):
            expected = tuple(detail["shape"][1:].tolist())
            if array.shape[1:] != expected or not array.shape[0]:
                raise UserError(
                    f"`images` must be at least one image of {'x'.join(map(str, expected))}, in an array "
                    f"{_AXES.get(len(expected), '[n, ...]')}. Received: shape {array.shape}."
                )
        return in_batches(lambda batch: self._decoded(self._run(self._encoded(batch))), images, batch_size)

    def example(self) -> Arrays:
        """Returns an image of zeros as `predict` takes it, `[1, height, width, channels]`."""
        zeros = {}
        for name, detail in self._inputs.items():
            is_quantised = bool(detail["quantization"][0])
            zeros[name] = np.zeros((1, *detail["shape"][1:]), np.float32 if is_quantised else detail["dtype"])
        return zeros if len(zeros) > 1 else next(iter(zeros.values()))

    @property
    def is_accelerated(self) -> bool:
        """Whether XNNPACK's kernels run the file, or a part of it."""
        self._run(self._encoded(self.example()))
        # No public method tells which operators a delegate took over.
        return any(operator["op_name"] == "DELEGATE" for operator in self._interpreter._get_ops_details())

    def bind(self, images: Arrays) -> Callable[[], None]:
        """Returns a function that runs `images` once, for timing: copies in, computes, copies out."""
        encoded = self._encoded(images)
        self._run(encoded)

        def run() -> None:
            self._run(encoded)

        return run

    def _tensors(self) -> tuple[dict[str, dict], dict[str, dict]]:
        """Details of the inputs and of the outputs, by name if the file names them in a signature."""
        details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if max(map(len, details)) > 1 and self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner()
            return dict(sorted(runner.get_input_details().items())), dict(sorted(runner.get_output_details().items()))
        inputs, outputs = ({one["name"]: one for one in found} for found in details)
        return inputs, outputs

    def _in_order(self, images: Arrays) -> list[np.ndarray]:
        return [images[name] for name in self._inputs] if isinstance(images, Mapping) else [images]

    def _run(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes, indices = [array.shape for array in images], [detail["index"] for detail in self._inputs.values()]
        if shapes != self._shapes:
            for index, shape in zip(indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._allocate()
            self._shapes = shapes
        for index, array in zip(indices, images, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(detail["index"]) for detail in self._outputs.values()]

    def _allocate(self) -> None:
        try:
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise UserError(
                f"TFLite can't run {self._path}: {str(error).strip()} Weights or outputs of very different sizes can "
                "cause this in an int8 file. Check the accuracy of the network, or use another format."
            ) from error

    def _encoded(self, images: Arrays) -> list[np.ndarray]:
        return [
            _encode(array, detail) for array, detail in zip(self._in_order(images), self._inputs.values(), strict=True)
        ]

    def _decoded(self, outputs: Sequence[np.ndarray]) -> Arrays:
        pairs = zip(self._outputs.items(), outputs, strict=True)
        decoded = {name: _decode(array, detail) for (name, detail), array in pairs}
        return decoded if len(decoded) > 1 else next(iter(decoded.values()))


def _encode(images: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Images in the type of an input, quantised if it is."""
    scale, zero_point = detail["quantization"]
    if not scale:
        wanted = np.dtype(detail["dtype"])
        if not np.can_cast(images.dtype, wanted, "same_kind" if wanted.kind == "f" else "safe"):
            raise UserError(f"`images` must be {wanted}. Received: {images.dtype}.")
        return images.astype(wanted, copy=False)
    limits = np.iinfo(detail["dtype"])
    rounded = np.rint(images / np.float32(scale)) + zero_point
    return np.clip(rounded, limits.min, limits.max).astype(detail["dtype"])


def _decode(outputs: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Numbers of an output, which may be quantised."""
    scale, zero_point = detail["quantization"]
    return (outputs.astype(np.float32) - zero_point) * np.float32(scale) if scale else outputs


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
    for number, image in enumerate(images):
        if number == 0 and images.dtype == np.uint8:
            # With the whole range present, the file's input are the pixels themselves: scale 1, zero point 0.
            image = image.copy()
            image[0, 0], image[-1, -1] = 0, 255
        yield [image[np.newaxis].astype(np.float32)]
