"""Measures how long the steps of a student's training take on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.training_data import TrainingData
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import train_network
from tas_tf.training.settings import TrainSettings

_STEPS = 12


@dataclass(frozen=True)
class Pace:
    """How long parts of a student's training take, in seconds.

    Attributes:
        step: A training step of the student.
        overhead: What a training takes besides its steps: building, tracing, scoring.
    """

    step: float
    overhead: float


def measure_pace(
    space: SearchSpace,
    shape: Shape,
    data: TrainingData,
    settings: TrainSettings,
    *,
    strategy: tf.distribute.Strategy,
    scored_on: tf.data.Dataset,
    teacher: keras.Model | None = None,
) -> Pace:
    """Trains a network of a shape for a few steps and takes the time.

    Args:
        space: Search space of the unpruned network.
        shape: Shape whose training to time.
        data: Training images.
        settings: Settings of the training.
        strategy: Distribution strategy.
        scored_on: Images to score.
        teacher: Network ending in logits, made in the strategy's scope, if students learn from one.
    """
    clock = _Clock()
    started = time.monotonic()
    train_network(
        space,
        shape,
        data,
        replace(settings, lr=0.0),  # random weights may diverge
        strategy=strategy,
        teacher=teacher,
        callbacks=[clock],
        verbose=0,
        scored_on=scored_on,
        steps=_STEPS,
    )
    # The first step includes tracing.
    step = float(np.median(np.diff(clock.begun[1:])))
    return Pace(step, max(0.0, time.monotonic() - started - _STEPS * step))


class _Clock(keras.callbacks.Callback):
    """Notes when each step begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[float] = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun.append(time.monotonic())
