"""Checks that an artefact computes what its model computes."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tas_tf.deploy.arrays import Arrays, count, listed
from tas_tf.deploy.errors import ExportError
from tas_tf.deploy.layers import LayerFigures
from tas_tf.deploy.profile import OperatorTime
from tas_tf.deploy.scored_on import ScoredOn

#: Advice for formats whose rounding costs too much accuracy.
_REMEDIES = {
    "fp16": "Try fp32.",
    "dynamic": "Try fp16.",
    "int8": "Try qat_int8, which fine-tunes for it, more `calibration_images`, or dynamic, which only rounds weights.",
    "qat_int8": "Try more `qat.epochs` or another `qat.lr` with `overwrite`, or dynamic, which only rounds weights.",
}


class Artefact(Protocol):
    """A deployed model, loaded from its file."""

    def predict(self, images: Arrays, *, batch_size: int = 128) -> Arrays:
        """Runs images `[n, height, width, channels]`, several inputs by name; returns outputs `[n, ...]` likewise."""


@dataclasses.dataclass(frozen=True)
class ArtefactMetrics:
    """Measurements of one artefact.

    Attributes:
        metric: Name of the score that counts for the task, such as `accuracy`.
        score: That score on the test images.
        accuracy: Share of right answers, 0 to 1; `None` for tasks that have none.
        agreement: How well artefact and Keras model agree: the share of test images on which they choose the same
            class, see `Objective.agreement`.
        bytes: Size on disk; for a SavedModel, the size of all its files.
        latency_ms: Median milliseconds for one image; `None` until timed.
        latency_spread_ms: Milliseconds between the 10th and the 90th percentile.
        max_abs_diff: Largest absolute difference between the outputs of artefact and Keras model.
        operators: Types of operator with their times, the most expensive first; `None` if there is no profile.
        layers: Size and time of each layer with weights; `None` for a SavedModel.
        micro: What a microcontroller needs, see `MicroReport.to_json`; `None` without a C array.
    """

    metric: str
    score: float
    accuracy: float | None
    agreement: float
    bytes: int
    latency_ms: float | None
    latency_spread_ms: float | None
    max_abs_diff: float
    operators: list[OperatorTime] | None = None
    layers: list[LayerFigures] | None = None
    micro: dict[str, Any] | None = None


def verify_artefact(
    artefact: Artefact,
    path: str | Path,
    *,
    name: str,
    test: ScoredOn,
    expected: Arrays,
    tolerance: float | None,
) -> ArtefactMetrics:
    """Runs an artefact on the test set and compares its outputs with the Keras model's.

    Args:
        artefact: The artefact, loaded from `path`.
        path: File or folder of the artefact.
        name: Name of the artefact in error messages.
        test: Test images and their labels.
        expected: The Keras model's outputs for these images, `[n, ...]`.
        tolerance: Largest difference allowed in each output, as a share of its largest magnitude in `expected`; `None`
            allows any finite difference.

    Returns:
        All measurements except latency, operators and layers, which are `None`.

    Raises:
        ExportError: If the outputs differ by more than the tolerance, or have another shape. The message has the
            figures.
    """
    outputs = artefact.predict(test.images)
    found, wanted = listed(outputs), listed(expected)
    if [one.shape for one in found] != [one.shape for one in wanted]:
        shapes = [", ".join(str(one.shape) for one in each) for each in (found, wanted)]
        raise ExportError(f"{name} returns outputs of shape {shapes[0]}, its Keras model {shapes[1]}.")
    scores = test.scores(outputs) if all(np.isfinite(one).all() for one in found) else {}
    differences = [float(np.max(np.abs(one - other))) for one, other in zip(found, wanted, strict=True)]
    metrics = ArtefactMetrics(
        metric=test.objective.metric,
        score=scores.get(test.objective.metric, math.nan),
        accuracy=scores.get("accuracy"),
        agreement=test.agreement(outputs, expected),
        bytes=size_on_disk(path),
        latency_ms=None,
        latency_spread_ms=None,
        max_abs_diff=float(np.max(differences)),
    )
    for difference, one in zip(differences, wanted, strict=True):
        largest = float(np.max(np.abs(one)))
        allowed = sys.float_info.max if tolerance is None else tolerance * largest
        # NaN compares false with everything, and infinite outputs would allow any difference.
        if not (np.isfinite(largest) and difference <= allowed):
            limit = (
                "it must be finite"
                if tolerance is None
                else f"at most {allowed:.3g} is allowed ({tolerance:g} of the largest output)"
            )
            raise ExportError(
                f"{name} differs from its Keras model: max_abs_diff {difference:.3g} on {count(test.images)} images; "
                f"{limit}. Agreement {metrics.agreement:.4f}, {test.objective.told(metrics.score)}, "
                f"{metrics.bytes} bytes."
            )
    return metrics


def check_score(
    metrics: ArtefactMetrics,
    format: str,
    *,
    name: str,
    test: ScoredOn,
    expected: Arrays,
    max_drop: float,
    whom: str = "its Keras model",
) -> None:
    """Rejects an artefact whose rounding costs too much accuracy, or another score that counts.

    Args:
        metrics: Measurements of the artefact.
        format: Format of the artefact.
        name: Name of the artefact in error messages.
        test: Test images and their labels.
        expected: Outputs of the reference model on these images.
        max_drop: Largest loss allowed, 0 to 1; of errors, as a share of the best constant's error.
        whom: Name of the reference model in error messages.

    Raises:
        ExportError: If the artefact loses more. The message says what to try.
    """
    before = test.scores(expected)[metrics.metric]
    drop = test.objective.drop_of(metrics.score, before, test.constant_score)
    if not drop <= max_drop + 1e-9:  # NaN compares false
        raise ExportError(
            f"{name} loses {100 * drop:.2f} {test.objective.points} compared with {whom} "
            f"({before:.4f} to {metrics.score:.4f}); `max_accuracy_drop` allows {100 * max_drop:.2f}. "
            f"{_REMEDIES.get(format, '')}"
        )


def size_on_disk(path: str | Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
