"""Checks that an artefact computes what its model computes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Protocol

import numpy as np

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.profile import OperatorTime
from tas_tf.errors import UserError

#: Advice for formats whose rounding costs too much accuracy.
_REMEDIES = {
    "fp16": "Try fp32.",
    "dynamic": "Try fp16.",
    "int8": "Try qat_int8, which fine-tunes for it, more `calibration_images`, or dynamic, which only rounds weights.",
    "qat_int8": "Try more `qat.epochs` or another `qat.lr` with `overwrite`, or dynamic, which only rounds weights.",
}


class Artefact(Protocol):
    """A deployed model, loaded from its file."""

    def predict(self, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
        """Runs images `[n, height, width, channels]`; returns outputs `[n, classes]`."""


@dataclasses.dataclass(frozen=True)
class ArtefactMetrics:
    """Measurements of one artefact.

    Attributes:
        accuracy: Share of test images whose largest output is at the label, 0 to 1.
        agreement: Share of test images on which artefact and Keras model choose the same class.
        bytes: Size on disk; for a SavedModel, the size of all its files.
        latency_ms: Median milliseconds for one image; `None` until timed.
        latency_spread_ms: Milliseconds between the 10th and the 90th percentile.
        max_abs_diff: Largest absolute difference between the outputs of artefact and Keras model.
        operators: Types of operator with their times, the most expensive first; `None` if there is no profile.
    """

    accuracy: float
    agreement: float
    bytes: int
    latency_ms: float | None
    latency_spread_ms: float | None
    max_abs_diff: float
    operators: list[OperatorTime] | None = None


def verify_artefact(
    artefact: Artefact,
    path: str | Path,
    *,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
    tolerance: float | None,
) -> ArtefactMetrics:
    """Runs an artefact on the test set and compares its outputs with the Keras model's.

    Args:
        artefact: The artefact, loaded from `path`.
        path: File or folder of the artefact.
        name: Name of the artefact in error messages.
        images: Test images, `[n, height, width, channels]`.
        labels: Integer classes, `[n]`.
        expected: The Keras model's outputs for these images, `[n, classes]`.
        tolerance: Largest difference allowed, as a share of the largest magnitude in `expected`; `None` allows any
            finite difference.

    Returns:
        All measurements except latency and operators, which are `None`.

    Raises:
        ExportError: If the outputs differ by more than the tolerance, or have another shape. The message has the
            figures.
    """
    outputs = artefact.predict(images)
    if outputs.shape != expected.shape:
        raise ExportError(f"{name} returns outputs of shape {outputs.shape}, its Keras model {expected.shape}.")
    classes = outputs.argmax(axis=-1)
    metrics = ArtefactMetrics(
        accuracy=float(np.mean(classes == labels)),
        agreement=float(np.mean(classes == expected.argmax(axis=-1))),
        bytes=size_on_disk(path),
        latency_ms=None,
        latency_spread_ms=None,
        max_abs_diff=float(np.max(np.abs(outputs - expected))),
    )
    largest = float(np.max(np.abs(expected)))
    allowed = sys.float_info.max if tolerance is None else tolerance * largest
    # NaN compares false with everything, and infinite outputs would allow any difference.
    if not (np.isfinite(largest) and metrics.max_abs_diff <= allowed):
        limit = (
            "it must be finite"
            if tolerance is None
            else f"at most {allowed:.3g} is allowed ({tolerance:g} of the largest output)"
        )
        raise ExportError(
            f"{name} differs from its Keras model: max_abs_diff {metrics.max_abs_diff:.3g} on {len(images)} "
            f"images; {limit}. Agreement {metrics.agreement:.4f}, accuracy {metrics.accuracy:.4f}, "
            f"{metrics.bytes} bytes."
        )
    return metrics


def check_accuracy(
    metrics: ArtefactMetrics,
    format: str,
    *,
    name: str,
    expected: float,
    max_drop: float,
    whom: str = "its Keras model",
) -> None:
    """Rejects an artefact whose rounding costs too much accuracy.

    Args:
        metrics: Measurements of the artefact.
        format: Format of the artefact.
        name: Name of the artefact in error messages.
        expected: Accuracy of the reference model on the same images, 0 to 1.
        max_drop: Largest loss of accuracy allowed, 0 to 1.
        whom: Name of the reference model in error messages.

    Raises:
        ExportError: If the artefact loses more accuracy. The message says what to try.
    """
    drop = expected - metrics.accuracy
    if drop > max_drop + 1e-9:
        raise ExportError(
            f"{name} loses {100 * drop:.2f} points of accuracy compared with {whom} ({expected:.4f} to "
            f"{metrics.accuracy:.4f}); `max_accuracy_drop` allows {100 * max_drop:.2f}. {_REMEDIES.get(format, '')}"
        )


def size_on_disk(path: str | Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_test_set(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks a test set, and returns it as arrays.

    Raises:
        UserError: If images and labels don't match.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or len(images) == 0:
        raise UserError(f"`images` must be [n, height, width, channels], n > 0. Received: {images.shape}.")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"`labels` must be integer classes, one for each of the {len(images)} images. "
            f"Received: {labels.dtype} of shape {labels.shape}."
        )
    return images, labels
