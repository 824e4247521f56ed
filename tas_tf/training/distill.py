"""Trains networks: the teacher on labels, students on labels and on the teacher's logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tas_tf.averaging import cumulative
from tas_tf.graph.layers import plain_model
from tas_tf.objectives.objective import Objective
from tas_tf.training.accumulation import over_parts
from tas_tf.training.recompute import make_forward
from tas_tf.training.settings import ChangingDistillation, Distillation

#: Largest share of their initial values that settled running statistics may hold.
_REMAINS = 1e-4


def compile_network(model: keras.Model, optimizer: keras.Optimizer, objective: Objective) -> keras.Model:
    """Compiles a model that ends in logits to learn from labels alone."""
    model.compile(
        optimizer=optimizer, loss=objective.keras_loss(), metrics=[objective.keras_metric()], jit_compile=False
    )
    return model


def distillation_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    teacher_logits: tf.Tensor | None = None,
    *,
    alpha: float | tf.Tensor = Distillation.alpha,
    temperature: float = Distillation.temperature,
    objective: Objective,
) -> tf.Tensor:
    """Computes `(1 - alpha) * loss + alpha * divergence from the teacher` for each example.

    Args:
        labels: Labels as the objective has them.
        logits: Student logits, `[batch, ..., outputs]`, of any float type.
        teacher_logits: Teacher logits of the same shape, which get no gradient. Without them, only the labels count.
        alpha: Weight of the divergence from the teacher, from 0 to 1.
        temperature: Divisor of both networks' logits, above 0.
        objective: What the outputs mean; for classes, this is `(1 - alpha) * CE + alpha * T^2 * KL(teacher ||
            student)`.

    Returns:
        Losses, float32 `[batch]`.
    """
    logits = tf.cast(logits, tf.float32)
    wanted = None if teacher_logits is None else tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    return objective.training_losses(labels, logits, wanted, alpha=alpha, temperature=temperature)


def distiller(
    student: keras.Model,
    teacher: keras.Model | None,
    optimizer: keras.Optimizer,
    *,
    objective: Objective,
    alpha: float = Distillation.alpha,
    temperature: float = Distillation.temperature,
    alpha_end: float | None = ChangingDistillation.alpha_end,
    steps: int | tf.Variable = 1,
    parts: int = 1,
    recompute: bool = False,
) -> Distiller:
    """Prepares a student for training with `distillation_loss`. Call it inside the strategy's scope.

    Args:
        student: Network ending in logits, trained in place.
        teacher: Network ending in logits, left unchanged; without one, the labels alone count.
        optimizer: Optimizer of the student's weights.
        objective: What the outputs mean.
        alpha: Weight of the divergence from the teacher, from 0 to 1.
        temperature: Divisor of both networks' logits, above 0.
        alpha_end: Weight at the end, if it changes along half a cosine.
        steps: Steps of the whole training, for `alpha_end`.
        parts: Parts of a batch that are computed one after another, see `over_parts`.
        recompute: Whether activations are computed again instead of being kept, see `Recomputing`.

    Raises:
        UserError: `alpha`, `alpha_end` or `temperature` is out of range, or the student can't be recomputed.
    """
    ChangingDistillation(alpha=alpha, temperature=temperature, alpha_end=alpha_end)  # checks all
    weight = constant(alpha) if alpha_end is None else falling(alpha, alpha_end, steps)
    options = {"objective": objective, "alpha": weight, "temperature": temperature, "parts": parts}
    result = Distiller(student, teacher, name="distiller", recompute=recompute, **options)
    result.compile(optimizer=optimizer)
    return result


def constant(alpha: float) -> Callable[[tf.Tensor], float]:
    """Returns a weight that doesn't depend on the step."""
    return lambda step: alpha


def falling(start: float, end: float, steps: int | tf.Variable) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a weight that goes from `start` to `end` along half a cosine.

    >>> weight = falling(0.8, 0.2, 100)
    >>> [round(float(weight(tf.constant(step))), 3) for step in (0, 50, 100)]
    [0.8, 0.5, 0.2]
    """

    def at(step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float32) / steps, 1.0)
        return end + (start - end) * (1 + tf.cos(math.pi * progress)) / 2

    return at


class Distiller(keras.Model):
    """Trains a student on labels and on a teacher's logits.

    Args:
        student: Network ending in logits.
        teacher: Network ending in logits. It runs in inference mode and isn't part of this model, so it is neither
            trained nor saved with it. Without one, the labels alone count, and the regularisation of the layers.
        objective: What the outputs mean.
        alpha: Takes the number of steps done; returns the weight of the divergence from the teacher.
        temperature: Divisor of both networks' logits.
        parts: Parts of a batch that are computed one after another, see `over_parts`.
        recompute: Whether activations are computed again instead of being kept, see `Recomputing`.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        *,
        objective: Objective,
        alpha: Callable[[tf.Tensor], tf.Tensor | float],
        temperature: float,
        parts: int = 1,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.student = student
        # A closure, so that Keras doesn't track the teacher's weights.
        self._teach = None if teacher is None else (lambda images: teacher(images, training=False))
        self._objective, self._alpha, self._temperature, self._parts = objective, alpha, temperature, parts
        self._forward = make_forward(student, recompute=recompute)
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._progress = objective.keras_metric()
        self.built = True

    def compile(self, optimizer: keras.Optimizer) -> None:
        """Sets and builds the optimizer. Call it inside the strategy's scope."""
        super().compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(self.student.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch, which Keras resets."""
        return [self._loss_mean, self._progress]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the student's logits, `[batch, ..., outputs]`."""
        return self.student(images, training=training)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Updates the student on one batch: images, labels and, if they are known, the teacher's logits."""
        images, labels, *known = data  # Keras's own loop appends sample weights, which are None
        alpha = self._alpha(self.optimizer.iterations)
        batch = [images, labels, known[0] if known else None]

        def compute(images: tf.Tensor, labels: tf.Tensor, known: tf.Tensor | None) -> list[tf.Tensor]:
            return self._gradients(images, labels, known, alpha)

        gradients = over_parts(compute, batch, self._parts)
        self.optimizer.apply_gradients(zip(gradients, self.student.trainable_variables, strict=True))
        return self.get_metrics_result()

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor, known: tf.Tensor | None, alpha: tf.Tensor | float
    ) -> list[tf.Tensor]:
        """Gradients of the mean loss over a part of a batch, which the metrics take note of."""
        wanted = self._teach(images) if known is None and self._teach is not None else known
        options = {"alpha": alpha, "temperature": self._temperature, "objective": self._objective}
        with tf.GradientTape() as tape:
            logits, added = self._forward(images)
            loss = tf.reduce_mean(distillation_loss(labels, logits, wanted, **options))
            if self._teach is None and added:  # as in Keras's own training
                loss += tf.add_n(added)
            # Optimizers sum gradients over replicas.
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(share, [variable.value for variable in self.student.trainable_variables])
        self._loss_mean.update_state(loss)
        self._progress.update_state(labels, logits)
        return gradients


def is_unsettled(model: keras.Model, steps: int) -> bool:
    """Whether running statistics still depend on their initial values after `steps` steps.

    A small remainder does harm: a variance that keeps a hundredth of its initial value, 1, is far too large where
    activations are small, and each layer passes the error on. Statistics settle after about 900 steps with Keras's
    default momentum of 0.99, and after ten times as many with MobileNetV2's 0.999.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return any(norm.momentum**steps > _REMAINS for norm in norms)


class Recalibration:
    """Sets the running statistics of every BatchNormalization of a model to their mean over some batches.

    Only batch normalisation runs in training mode. Dropout and augmentation are off, so that the statistics are those
    of the images that the network will be used on. The computation is traced once, however often it is called.

    Args:
        model: Functional model, changed in place.
    """

    def __init__(self, model: keras.Model) -> None:
        self._norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        self._momentum = tf.Variable(0.0, trainable=False)
        calibrated = _normalising_by_batch(model)
        self._update = tf.function(lambda images: calibrated(images), reduce_retracing=True)

    def __call__(self, batches) -> None:
        """Computes the statistics.

        Args:
            batches: Finite dataset of `(images, labels)`.
        """
        momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = self._momentum  # read while tracing
        try:
            for (images, _), momentum in cumulative(batches):
                self._momentum.assign(momentum)
                self._update(images)
        finally:
            for norm, momentum in zip(self._norms, momenta, strict=True):
                norm.momentum = momentum


def _normalising_by_batch(model: keras.Model) -> keras.Model:
    """Returns a model of the same layers, with only batch normalisation in training mode."""

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Layer):
            kwargs["training"] = isinstance(layer, keras.layers.BatchNormalization)
        return layer(*args, **kwargs)

    return keras.models.clone_model(plain_model(model), clone_function=lambda layer: layer, call_function=call)
