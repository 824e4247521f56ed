"""Checking that an artefact computes what its model computes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Protocol

import numpy as np

from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.profile import OperatorTime
from tas_tf.errors import UserError

#: What to try where rounding costs too much accuracy.
_REMEDIES = {
    "fp16": "Try fp32.",
    "dynamic": "Try fp16.",
    "int8": "Try qat_int8, which trains for it; or more `calibration_images`; or dynamic, which rounds weights alone.",
    "qat_int8": "Try more `qat.epochs` or another `qat.lr`, with `overwrite`; or dynamic, which rounds weights alone.",
}


class Artefact(Protocol):
    """A deployed model, loaded again."""

    def predict(self, images: np.ndarray, *, batch_size: int = 128) -> np.ndarray:
        """Runs images `[n, height, width, channels]`; returns outputs `[n, classes]`."""


@dataclasses.dataclass(frozen=True)
class ArtefactMetrics:
    """What was measured on one artefact.

    Attributes:
        accuracy: Share of test images whose largest output is the label, 0 to 1.
        agreement: Share of test images on which artefact and Keras model choose the same class.
        bytes: Size on disk; of a SavedModel all its files.
        latency_ms: Median milliseconds for one image; `None` until timed.
        latency_spread_ms: Milliseconds between the 10th and the 90th percentile.
        max_abs_diff: Largest absolute difference between its outputs and the Keras model's.
        operators: Which kinds of operator take the time, the most expensive first; `None` where nobody says.
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
    """Runs an artefact on the test set and compares it with the outputs of its Keras model.

    Args:
        artefact: The artefact, loaded from `path`.
        path: File or folder of the artefact.
        name: What an error calls it.
        images: Test images, `[n, height, width, channels]`.
        labels: Integer classes, `[n]`.
        expected: The Keras model's outputs for these images, `[n, classes]`.
        tolerance: Largest difference allowed, as a share of the largest magnitude in `expected`; `None`: any, as
            long as it is a number.

    Returns:
        Everything except latency and operators, which are `None`.

    Raises:
        ExportError: If the outputs differ by more, or have another shape; the message has the figures.
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
        limit = "any that is a number" if tolerance is None else f"{allowed:.3g} ({tolerance:g} of the largest output)"
        raise ExportError(
            f"{name} differs from its Keras model: max_abs_diff {metrics.max_abs_diff:.3g} on {len(images)} "
            f"images, allowed is {limit}; agreement {metrics.agreement:.4f}, accuracy {metrics.accuracy:.4f}, "
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
    """Refuses an artefact whose rounding costs too much accuracy.

    Args:
        metrics: What was measured of it.
        format: Its format.
        name: What an error calls it.
        expected: Accuracy of what it is compared with on the same images, 0 to 1.
        max_drop: What it may lose, 0 to 1.
        whom: What it is compared with.

    Raises:
        ExportError: It loses more; the message says what to try.
    """
    drop = expected - metrics.accuracy
    if drop > max_drop + 1e-9:
        raise ExportError(
            f"{name} loses {100 * drop:.2f} points of accuracy against {whom} ({expected:.4f} to "
            f"{metrics.accuracy:.4f}); `max_accuracy_drop` allows {100 * max_drop:.2f}. {_REMEDIES.get(format, '')}"
        )


def size_on_disk(path: str | Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def select_test_set(
    images: np.ndarray, labels: np.ndarray, *, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a test set and takes at most `limit` examples, spread evenly, since it may be sorted by class.

    Raises:
        UserError: If images and labels don't fit together, or `limit` isn't positive.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or len(images) == 0:
        raise UserError(f"`images` must be [n, height, width, channels], n > 0. Received: {images.shape}.")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"`labels` must be integer classes, one for each of the {len(images)} images. "
            f"Received: {labels.dtype} of shape {labels.shape}."
        )
    if limit is None or limit >= len(images):
        return images, labels
    if limit < 1:
        raise UserError(f"`limit` must be at least 1, or None for the whole test set. Received: {limit}.")
    chosen = np.linspace(0, len(images) - 1, limit).round().astype(int)
    return images[chosen], labels[chosen]
