"""Trains classifiers: the teacher on labels, students on labels and on the teacher's logits."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tas_tf.averaging import cumulative
from tas_tf.training.settings import Distillation

#: Share of their start that running statistics may keep.
_REMAINS = 1e-4


def compile_classifier(model: keras.Model, optimizer: keras.Optimizer) -> keras.Model:
    """Compiles a model that ends in logits to learn from labels alone."""
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return model


def distillation_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    teacher_logits: tf.Tensor | None = None,
    *,
    alpha: float = Distillation.alpha,
    temperature: float = Distillation.temperature,
) -> tf.Tensor:
    """Computes `(1 - alpha) * CE + alpha * T^2 * KL(teacher || student)` for each example.

    Log-probabilities come straight from the logits. Clipped probabilities, as in `keras.losses.KLDivergence`, pass no
    gradient where logits are more than about 16 temperatures apart.

    Args:
        labels: Class numbers, `[batch]`.
        logits: The student's, `[batch, classes]`, of any float type.
        teacher_logits: The teacher's, in the same shape; no gradient reaches them. Without them the loss is the
            cross-entropy alone.
        alpha: Weight of the divergence from the teacher, from 0 to 1.
        temperature: Divides the logits of both; above 0.

    Returns:
        Losses, float32 `[batch]`.

    Reference:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    logits = tf.cast(logits, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if teacher_logits is None:
        return cross_entropy
    wanted = tf.nn.log_softmax(tf.stop_gradient(tf.cast(teacher_logits, tf.float32)) / temperature)
    found = tf.nn.log_softmax(logits / temperature)
    divergence = tf.reduce_sum(tf.exp(wanted) * (wanted - found), axis=-1)
    return (1 - alpha) * cross_entropy + alpha * temperature**2 * divergence


def distiller(
    student: keras.Model,
    teacher: keras.Model,
    optimizer: keras.Optimizer,
    *,
    alpha: float = Distillation.alpha,
    temperature: float = Distillation.temperature,
) -> Distiller:
    """Prepares a student for training by `distillation_loss`; the caller is in the strategy's scope.

    Args:
        student: Ends in logits. It is trained in place.
        teacher: Ends in logits. It stays as it is.
        optimizer: Updates the student's weights.
        alpha: Weight of the divergence from the teacher, from 0 to 1.
        temperature: Divides the logits of both; above 0.

    Raises:
        UserError: `alpha` or `temperature` is out of range.
    """
    Distillation(alpha=alpha, temperature=temperature)  # checks both
    result = Distiller(student, teacher, alpha=alpha, temperature=temperature, name="distiller")
    result.compile(optimizer=optimizer)
    return result


class Distiller(keras.Model):
    """Trains a student on labels and on a teacher's logits.

    Args:
        student: Ends in logits.
        teacher: Ends in logits. It runs in inference mode and isn't part of this model: it is neither trained nor
            saved with it.
        alpha: Weight of the divergence from the teacher.
        temperature: Divides the logits of both.
        **kwargs: Keras's own arguments of a model.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, *, alpha: float, temperature: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.student = student
        # A closure, so that Keras doesn't track the teacher's weights.
        self._teach = lambda images: teacher(images, training=False)
        self._alpha, self._temperature = alpha, temperature
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.built = True

    def compile(self, optimizer: keras.Optimizer) -> None:
        """Takes the optimizer and builds it; the caller is in the strategy's scope."""
        super().compile(optimizer=optimizer, jit_compile=False)
        optimizer.build(self.student.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over an epoch. Keras resets them."""
        return [self._loss_mean, self._accuracy]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Gives the student's logits, `[batch, classes]`."""
        return self.student(images, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Updates the student by one batch of images and class numbers."""
        images, labels = data[:2]  # Keras's own loop adds weights of examples, which are None
        teacher_logits = self._teach(images)
        with tf.GradientTape() as tape:
            logits = self.student(images, training=True)
            losses = distillation_loss(labels, logits, teacher_logits, alpha=self._alpha, temperature=self._temperature)
            loss = tf.reduce_mean(losses)
            # Optimizers sum gradients over replicas.
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.student.trainable_variables
        gradients = tape.gradient(share, [variable.value for variable in variables])
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._loss_mean.update_state(loss)
        self._accuracy.update_state(labels, logits)
        return self.get_metrics_result()


def is_unsettled(model: keras.Model, steps: int) -> bool:
    """Whether running statistics still hold something of where they started after so many steps.

    It takes little: a variance that keeps a hundredth of its start, 1, is far too large where activations are small,
    and each layer passes the error on. With Keras's default momentum of 0.99 it takes some 900 steps, with the 0.999 of
    MobileNetV2 ten times as many.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return any(norm.momentum**steps > _REMAINS for norm in norms)


def recalibrate(model: keras.Model, batches) -> None:
    """Makes the running statistics of every BatchNormalization the mean over `batches`.

    Batch normalisation alone acts as in training. Dropout and augmentation stay out: statistics are those of the images
    that the network will be used on.

    Args:
        model: Functional; changed in place.
        batches: A finite dataset of `(images, labels)`.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    calibrated = _normalising_by_batch(model)
    try:
        for (images, _), momentum in cumulative(batches):
            for norm in norms:
                norm.momentum = momentum
            calibrated(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _normalising_by_batch(model: keras.Model) -> keras.Model:
    """The same layers, each called with a mode of its own: batch normalisation as in training, all others not."""

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Layer):
            kwargs["training"] = isinstance(layer, keras.layers.BatchNormalization)
        return layer(*args, **kwargs)

    # Without its losses and metrics, which a compiled model would hand on.
    plain = keras.Model(model.inputs[0], model.outputs[0])
    return keras.models.clone_model(plain, clone_function=lambda layer: layer, call_function=call)
