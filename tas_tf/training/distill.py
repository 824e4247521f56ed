"""Trains classifiers: the teacher on labels, students on labels and on what the teacher says."""

from __future__ import annotations

import keras

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


def distiller(
    student: keras.Model,
    teacher: keras.Model,
    optimizer: keras.Optimizer,
    *,
    alpha: float = Distillation.alpha,
    temperature: float = Distillation.temperature,
) -> keras.distillation.Distiller:
    """Compiles `(1 - alpha) * CE + alpha * T^2 * KL(teacher || student)`.

    Args:
        student: Ends in logits; it is trained in place.
        teacher: Ends in logits; it is frozen.
        optimizer: Of the student's weights.
        alpha: Weight of the teacher's word, from 0 to 1.
        temperature: Divides the logits of both; above 0.

    Reference:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    Distillation(alpha=alpha, temperature=temperature)  # checks both
    result = keras.distillation.Distiller(
        teacher=teacher,
        student=student,
        # The loss must be an object: the default resolves to a function, for which no softmax is taken.
        distillation_losses=keras.distillation.LogitsDistillation(
            temperature=float(temperature), loss=keras.losses.KLDivergence()
        ),
        student_loss_weight=1.0 - alpha,
    )
    result.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return result


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

    Args:
        model: Changed in place.
        batches: A finite dataset of `(images, labels)`.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    try:
        for number, (images, _) in enumerate(batches):
            for norm in norms:
                norm.momentum = number / (number + 1)
            model(images, training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
