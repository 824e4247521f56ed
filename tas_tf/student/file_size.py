"""Measures the file sizes of shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tas_tf.cost.cost_model import CostModel
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student


@dataclass(frozen=True)
class FileSize:
    """Measures TFLite file sizes of students with random weights, and remembers them by shape.

    Attributes:
        space: Search space of the unpruned network.
        measure: Returns the size of a network's file in bytes, such as `tas_tf.deploy.tflite.file_size`.
    """

    space: SearchSpace
    measure: Callable[[keras.Model], int]
    _known: dict[tuple, int] = field(default_factory=dict, repr=False)

    kind, measures = "bytes", True

    def cost_model(self) -> CostModel:
        """The cost model, calibrated on the unpruned network's file."""
        return CostModel(self.space, self.kind, file_bytes=self(Shape.full(self.space)))

    def figures(self) -> dict[str, Any]:
        """Nothing: the size of a shape's file is reported as its cost."""
        return {}

    def __call__(self, shape: Shape) -> int:
        """Measures the file size of a shape in bytes."""
        key = shape.counts
        if key not in self._known:
            student, rng = build_student(self.space, shape), np.random.default_rng(0)
            # Equal weights, such as biases of 0, are stored only once. Trained weights aren't equal.
            for weight in student.weights:
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
            self._known[key] = self.measure(student)
        return self._known[key]
