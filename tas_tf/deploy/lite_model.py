"""Runs `.tflite` files with LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tas_tf.deploy.arrays import Arrays, each, in_batches
from tas_tf.errors import UserError

# Axes of images in messages, by the number of axes of one.
_AXES = {3: "[n, height, width, channels]", 2: "[n, steps, channels]"}


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
        outputs = tas_tf.TFLiteModel("student_fp32.tflite").predict(images)
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
        if not isinstance(images, Mapping):
            return [images]
        return [images[name] for name in self._inputs] if len(self._inputs) > 1 else list(images.values())

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
