"""Fine-tunes a tf_keras network, quantised or not, on labels and on a teacher's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from tas_tf.data.training_data import TrainingData
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.qat.settings import FineTuneSettings
from tas_tf.training.distill import distillation_loss
from tas_tf.training.evaluation import evaluate
from tas_tf.training.loop import verbosity
from tas_tf.training.optimizers import add_l2
from tas_tf.training.strategy import check_batch_size


def fine_tune(
    network: tf_keras.Model,
    task: TrainingData,
    settings: FineTuneSettings,
    *,
    strategy: tf.distribute.Strategy,
    teacher: keras.Model | None = None,
    checkpoint_dir: str | Path | None = None,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> None:
    """Trains a network in place; resumes after the last finished epoch of an earlier call with the same folder.

    Args:
        network: Functional tf_keras model ending in logits.
        task: Training images.
        settings: Settings of the training.
        strategy: Distribution strategy.
        teacher: Keras 3 network ending in logits, left unchanged; without one, the network learns from labels alone.
        checkpoint_dir: Folder to save to after each epoch.
        callbacks: Callbacks of tf_keras.
        verbose: As in Keras.

    Raises:
        UserError: The batch doesn't fit the data, or the training diverges.
    """
    check_batch_size(strategy, settings.batch_size)
    dataset, steps = task.training(settings.batch_size)
    tf_keras.utils.set_random_seed(settings.seed)
    rate = tf_keras.optimizers.schedules.CosineDecay(settings.lr, settings.epochs * steps)
    with strategy.scope():
        trained = _replicated(network, strategy)
        optimizer = tf_keras.optimizers.SGD(rate, momentum=settings.momentum, nesterov=True)
        optimizer.build(trained.trainable_variables)
        learner = _Learner(trained, teacher, task.objective, settings)
        learner.compile(optimizer)
        checkpoints = None if checkpoint_dir is None else _Checkpoints(checkpoint_dir, trained, optimizer)
        done = 0 if checkpoints is None else checkpoints.restore()
    if done < settings.epochs:
        _fit(learner, dataset(done), done, steps, settings, [*filter(None, [checkpoints]), *callbacks], verbose)
    if trained is not network:
        network.set_weights(trained.get_weights())


def _replicated(network: tf_keras.Model, strategy: tf.distribute.Strategy) -> tf_keras.Model:
    """Returns the network itself on one device, otherwise a copy with variables on all devices."""
    if strategy.num_replicas_in_sync == 1:
        return network
    with tfmot.quantization.keras.quantize_scope():
        copy = tf_keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def _fit(
    learner: _Learner,
    dataset: tf.data.Dataset,
    done: int,
    steps: int,
    settings: FineTuneSettings,
    callbacks: Sequence[tf_keras.callbacks.Callback],
    verbose: int | str,
) -> None:
    learner.fit(
        dataset,
        epochs=settings.epochs,
        initial_epoch=done,
        steps_per_epoch=steps,
        callbacks=[_StopsAtNaN(), *callbacks],
        verbose=verbosity(verbose),
    )


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
        self._loss, self._progress = (tf_keras.metrics.Mean(name=name) for name in ("loss", objective.progress_name))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(images, training=training)

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        return [self._loss, self._progress]

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = data
        options = {"alpha": self._settings.alpha, "temperature": self._settings.temperature}
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            taught = self._teach(images)
            losses = distillation_loss(labels, logits, taught, objective=self._objective, **options)
            loss = tf.reduce_mean(losses)
            # Optimizers sum gradients over replicas.
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.network.trainable_variables
        gradients = add_l2(tape.gradient(share, variables), variables, self._settings.l2)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss.update_state(loss)
        self._progress.update_state(self._objective.progress(labels, logits))
        return {metric.name: metric.result() for metric in self.metrics}


class _Checkpoints(tf_keras.callbacks.Callback):
    """Saves after each epoch, so that a resumed run continues with the images of the next one."""

    def __init__(self, folder: str | Path, network: tf_keras.Model, optimizer: tf_keras.optimizers.Optimizer) -> None:
        super().__init__()
        self._epochs = tf.Variable(0, dtype=tf.int64, trainable=False)
        checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer, epochs=self._epochs)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1)

    def restore(self) -> int:
        """Restores the last saved epoch, if any, and returns the number of finished epochs."""
        self._manager.restore_or_initialize()
        return int(self._epochs.numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epochs.assign(epoch + 1)
        self._manager.save()


class _StopsAtNaN(tf_keras.callbacks.Callback):
    """Stops training, before the epoch is saved, if the loss or weights aren't finite."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        finite = all(np.isfinite(weight).all() for weight in self.model.network.get_weights())
        if not finite or not math.isfinite((logs or {}).get("loss", 0.0)):
            raise UserError(
                f"Fine-tuning diverged in epoch {epoch + 1}: loss or weights are not finite. Start again with "
                "`overwrite` and a lower learning rate, `lr`. Nothing of that epoch is kept."
            )
