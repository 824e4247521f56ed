"""Fine-tunes a tf_keras network, quantised or not, on labels and on a teacher's logits."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from tas_tf import workers
from tas_tf.board.scalars import EpochScalars
from tas_tf.data.share import reading
from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.interruption import REQUESTS, deferred
from tas_tf.objectives.objective import Objective
from tas_tf.qat.dropout import has_dropout, take_weights, with_counted_dropout
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.training.accumulation import over_parts
from tas_tf.training.checkpoint import Checkpoints, Progress, Saving
from tas_tf.training.distill import distillation_loss
from tas_tf.training.evaluation import evaluate
from tas_tf.training.loop import verbosity
from tas_tf.training.optimizers import add_l2
from tas_tf.training.strategy import check_batch_size, distribute, own_share


def fine_tune(
    network: tf_keras.Model,
    task: TrainingData,
    settings: FineTuneSettings,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    saving: Saving | None = None,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> None:
    """Trains a network in place; resumes where an earlier call with the same folder was interrupted.

    Args:
        network: Functional tf_keras model ending in logits.
        task: Training images.
        settings: Settings of the training.
        strategy: Distribution strategy.
        teacher: Keras 3 network ending in logits, left unchanged; without one, the network learns from labels alone.
        saving: Where to save to and to resume from.
        callbacks: Callbacks of tf_keras.
        verbose: As in Keras.

    Raises:
        UserError: The batch doesn't fit the data, or the training diverges.
    """
    check_batch_size(strategy, settings.batch_size, settings.accumulate)
    dataset, steps = task.training(settings.batch_size)
    tf_keras.utils.set_random_seed(settings.seed)
    rate = tf_keras.optimizers.schedules.CosineDecay(settings.lr, settings.epochs * steps)
    with strategy.scope():
        trained = _trainable(network, strategy, settings.seed)
        optimizer = tf_keras.optimizers.SGD(rate, momentum=settings.momentum, nesterov=True)
        optimizer.build(trained.trainable_variables)
        learner = _Learner(trained, teacher, task.objective, settings)
        learner.compile(optimizer)
        groups = {
            "network": trained.variables,
            "optimizer": list(optimizer.variables),
            "metrics": [variable for metric in learner.metrics for variable in metric.variables],
        }
        checkpoints = None if saving is None else Checkpoints(saving, groups)
        progress = Progress() if checkpoints is None else checkpoints.restore()
        learner.goes_on = progress.steps > 0
        workers.share([variable for group in groups.values() for variable in group])
        progress.check(steps)
    if progress.epochs < settings.epochs:
        saves = [] if checkpoints is None else [_Saves(checkpoints, progress, steps)]
        with contextlib.nullcontext() if checkpoints is None else deferred():

            def batches(epoch: int, done: int = 0) -> tf.data.Dataset | tf.distribute.DistributedDataset:
                with reading(own_share()):
                    rest = dataset(epoch, done)
                # Alone, tf_keras does it.
                return rest if workers.count() == 1 else distribute(strategy, rest, settings.batch_size)

            _fit(learner, batches, progress, steps, settings, [*saves, *callbacks], verbose)
    if trained is not network:
        take_weights(network, trained)


def _trainable(network: tf_keras.Model, strategy: tf.distribute.Strategy, seed: int) -> tf_keras.Model:
    """Returns the network itself if it can be trained as it is: on one device, and without dropout."""
    if strategy.num_replicas_in_sync == 1 and not has_dropout(network):
        return network
    return with_counted_dropout(network, seed)


def _fit(
    learner: _Learner,
    batches: Callable[..., Any],
    progress: Progress,
    steps: int,
    settings: FineTuneSettings,
    callbacks: Sequence[tf_keras.callbacks.Callback],
    verbose: int | str,
) -> None:
    options = {"callbacks": [_StopsAtNaN(), *callbacks], "verbose": verbosity(verbose)}
    done, first = progress.steps, progress.epochs
    if done:  # the rest of an interrupted epoch
        rest = {"initial_epoch": first, "epochs": first + 1, "steps_per_epoch": steps - done}
        learner.fit(batches(first, done), **rest, **options)
        first += 1
    if first < settings.epochs:
        learner.fit(batches(first), initial_epoch=first, epochs=settings.epochs, steps_per_epoch=steps, **options)


def score(network: tf_keras.Model, task: TrainingData) -> float:
    """Returns the score on the test images that counts, such as the accuracy, 0 to 1."""
    scores = evaluate(lambda images: network(images, training=False), task.test(), task.objective)
    return scores[task.objective.metric]


class _Learner(tf_keras.Model):
    """Trains a network by `distillation_loss`, as `tas_tf.training.distill.Distiller` does in Keras 3."""

    def __init__(
        self,
        network: tf_keras.Model,
        teacher: keras.Model | None,
        objective: Objective,
        settings: FineTuneSettings,
    ) -> None:
        super().__init__()
        self.network, self._objective = network, objective
        self._settings = settings
        # A closure, so that tf_keras neither trains nor saves the teacher.
        self._teach = lambda images: None if teacher is None else teacher(images, training=False)
        #: Whether the next epoch is the rest of an interrupted one.
        self.goes_on = False
        self._loss, self._progress = (tf_keras.metrics.Mean(name=name) for name in ("loss", objective.progress_name))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(images, training=training)

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        return [self._loss, self._progress]

    def reset_metrics(self) -> None:
        """Starts an epoch; what an interrupted one has counted stays."""
        if not self.goes_on:
            super().reset_metrics()
        self.goes_on = False

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        variables = self.network.trainable_variables
        gradients = add_l2(over_parts(self._gradients, data, self._settings.accumulate), variables, self._settings.l2)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {metric.name: metric.result() for metric in self.metrics}

    def _gradients(self, images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of the mean loss over a part of a batch, which the metrics take note of."""
        options = {"alpha": self._settings.alpha, "temperature": self._settings.temperature}
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            taught = self._teach(images)
            losses = distillation_loss(labels, logits, taught, objective=self._objective, **options)
            loss = tf.reduce_mean(losses)
            # Optimizers sum gradients over replicas.
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self._loss.update_state(loss)
        self._progress.update_state(self._objective.progress(labels, logits))
        return tape.gradient(share, self.network.trainable_variables)


class _Saves(tf_keras.callbacks.Callback):
    """Saves after each epoch, inside epochs when it is time to, and before the process ends.

    Args:
        checkpoints: Where to save to.
        progress: Progress at the start.
        steps: Steps of an epoch.
    """

    _supports_tf_logs = True  # it doesn't read logs, which would wait for the accelerator after each step

    def __init__(self, checkpoints: Checkpoints, progress: Progress, steps: int) -> None:
        super().__init__()
        self._checkpoints, self._steps, self._before = checkpoints, steps, progress
        self._epoch = progress.epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        earlier = self._before.steps if self._epoch == self._before.epochs else 0
        steps = earlier + batch + 1
        if steps < self._steps and self._checkpoints.wanted():
            _check_finite(self.model.network, self._epoch)
            self._checkpoints.save(Progress(self._epoch, steps=steps, steps_per_epoch=self._steps))
            self._end_together()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._checkpoints.save(Progress(epoch + 1))
        self._end_together()

    @staticmethod
    def _end_together() -> None:
        if workers.any_wants(False):
            REQUESTS.check()


class WritesScalars(tf_keras.callbacks.Callback):
    """Writes the logs of each epoch for TensorBoard, as `tas_tf.training.callbacks.TensorBoardScalars` in Keras 3.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: Path) -> None:
        super().__init__()
        self._scalars = EpochScalars(log_dir)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes one epoch."""
        self._scalars.write(epoch, logs or {}, [self.model.optimizer.learning_rate])

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the event files."""
        self._scalars.close()


class _StopsAtNaN(tf_keras.callbacks.Callback):
    """Stops training, before the epoch is saved, if the loss or weights aren't finite."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        _check_finite(self.model.network, epoch, (logs or {}).get("loss", 0.0))


def _check_finite(network: tf_keras.Model, epoch: int, loss: float = 0.0) -> None:
    finite = all(np.isfinite(weight).all() for weight in network.get_weights())
    if workers.any_true(not finite or not math.isfinite(loss)):
        raise UserError(
            f"Fine-tuning diverged in epoch {epoch + 1}: loss or weights are not finite. Start again with "
            "`overwrite` and a lower learning rate, `lr`. The last checkpoint is kept."
        )
