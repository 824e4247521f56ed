"""Trains a Keras classifier further for 8 bits, and saves it as a SavedModel."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tas_tf import workers
from tas_tf.data.training_data import TrainingData
from tas_tf.extras import require_extra
from tas_tf.graph.graph import Graph
from tas_tf.qat.saving import Head, write_quantised
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.training.checkpoint import Saving

_CALIBRATION_BATCHES = 20
_CALIBRATION_BATCH = 128


def check_quantisable(model: keras.Model) -> None:
    """Checks that a classifier can be trained quantisation-aware.

    Raises:
        QatError: The toolkit doesn't support some layers; the message names them.
        UserError: Keras 2 lacks a layer or computes it differently, or the extra `qat` is missing.
    """
    require_extra("qat")
    from tas_tf.qat.quantise import quantise
    from tas_tf.qat.twin import make_twin

    quantise(make_twin(model))


def train_quantised(
    model: keras.Model,
    task: TrainingData,
    settings: FineTuneSettings,
    path: str | Path,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    float_control: bool = False,
    saving: Saving | None = None,
    log_dir: str | Path | None = None,
    verbose: int | str = "auto",
) -> dict[str, Any]:
    """Fine-tunes a classifier with fake quantisation; resumes where an earlier call with the same folder stopped.

    Args:
        model: Trained Keras 3 classifier, left unchanged.
        task: Training and test images.
        settings: Settings of the fine-tuning.
        path: Folder for the network, a SavedModel that `load_quantised` reads.
        strategy: Distribution strategy.
        teacher: Network ending in logits to learn from in addition to the labels.
        float_control: Whether to fine-tune the model without quantisation as well, for as long, to show the effect of
            more training alone.
        saving: Where to save to and to resume from.
        log_dir: Folder for TensorBoard curves; the control has a folder of its own inside.
        verbose: As in Keras.

    Returns:
        `accuracy` of the quantised network (test set, 0 to 1), or the score that counts for another task,
        `calibrated_accuracy` before the fine-tuning, `float_accuracy` of the control, `epochs`, `seed` and `seconds` of
        this call.

    Raises:
        QatError: The toolkit doesn't support the network.
        UserError: Keras 2 can't build the network, the batch doesn't fit the data, the training diverges, or the extra
            `qat` is missing.
    """
    require_extra("qat")
    from tas_tf.qat.calibrate import calibrate
    from tas_tf.qat.finetune import WritesScalars, fine_tune, score
    from tas_tf.qat.quantise import quantise
    from tas_tf.qat.twin import make_twin

    started = time.monotonic()
    twin = make_twin(model)
    network = quantise(twin)
    shuffled = task.calibration(_CALIBRATION_BATCH, _CALIBRATION_BATCHES)
    calibrate(network, shuffled.map(lambda images, _: images))
    metric = task.objective.metric
    metrics: dict[str, Any] = {f"calibrated_{metric}": workers.once(lambda: score(network, task))}
    logs = None if log_dir is None or not workers.is_chief() else Path(log_dir)
    trained = {"quantised": network, **({"float": twin} if float_control else {})}
    for name, one in trained.items():
        fine_tune(
            one,
            task,
            settings,
            strategy=strategy,
            teacher=teacher,
            saving=None if saving is None else saving.within(name),
            callbacks=[] if logs is None else [WritesScalars(logs / name)],
            verbose=verbose,
        )
        found = workers.once(functools.partial(score, one, task))
        metrics[metric if name == "quantised" else f"float_{metric}"] = found
    write_quantised(path, network, heads=_heads(model))
    seconds = round(time.monotonic() - started, 1)
    return {**metrics, "epochs": settings.epochs, "seed": settings.seed, "seconds": seconds}


def _heads(model: keras.Model) -> dict[str, Head]:
    """The outputs by name, each with the activation that was split off, `linear` if there is none."""
    graph = Graph.from_model(model)
    heads = {}
    for end in graph.ends:
        activation = "linear" if end.head is None else graph.activation_of(end)
        heads[end.name] = Head(tuple(graph[end.output].shape[1:]), activation)
    return heads
